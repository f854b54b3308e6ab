"""What all endpoints of this interface share: a form, a checked client, and who may read the answer."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from litestar.openapi.spec import Operation

from api.oauth.clients import Client
from api.oauth.errors import of_error
from api.oauth.form import Form, parse_form
from api.request.address import Sender
from api.request.answer import Answer
from api.request.endpoint import Asked
from api.request.headers import Headers

CheckClient = Callable[[Headers, Form, Callable[[], Sender]], Awaitable[Client]]

_READABLE = b"preference-applied, retry-after, www-authenticate, x-request-id"


class Exchange(NamedTuple):
    """A request of a checked client."""

    asked: Asked
    form: Form
    client: Client


class FormEndpoint(Protocol):
    """Answers forms."""

    operation: Operation
    """Its description in the OpenAPI document."""

    def check(self, form: Form) -> None:
        """Raise the refusal of a form for which its client does not matter."""

    async def answer(self, exchange: Exchange) -> Answer:
        """Answer one request, or raise its refusal."""

    def refusal(self, error: Exception, form: Form) -> Answer:
        """Return the answer to a request that came to an error."""


class PlainRefusals:
    """The default of what most endpoints need not say."""

    def check(self, form: Form) -> None:
        """Every form is looked at after its client."""

    def refusal(self, error: Exception, form: Form) -> Answer:  # noqa: ARG002 - of the protocol
        """Return what the table of errors says."""
        return of_error(error)


class ClientEndpoint:
    """Reads a form, checks its client, and has the form answered."""

    def __init__(self, endpoint: FormEndpoint, check_client: CheckClient) -> None:
        self._endpoint = endpoint
        self._check_client = check_client
        self.operation = endpoint.operation

    async def __call__(self, asked: Asked) -> Answer:
        """Answer one request. What is wrong with its body itself is raised."""
        form = parse_form(await asked.body(), asked.headers, asked.query)
        client = None
        try:
            self._endpoint.check(form)
            client = await self._check_client(asked.headers, form, asked.sender)
            answer = await self._endpoint.answer(Exchange(asked, form, client))
        except Exception as error:  # noqa: BLE001 - the table of errors knows which are defects
            answer = self._endpoint.refusal(error, form)
        return answer if client is None else _readable(answer, asked.headers, client)


def _readable(answer: Answer, headers: Headers, client: Client) -> Answer:
    """Let pages of the project's origins read the answer (Fetch §3.2): no cookies, no credentials, no wildcard."""
    origin = headers.get(b"origin")
    if origin is None or origin.decode("latin-1") not in client.project.allowed_origins:
        return answer
    more = (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", _READABLE),
        (b"vary", b"Origin"),
    )
    return answer._replace(headers=(*answer.headers, *more))
