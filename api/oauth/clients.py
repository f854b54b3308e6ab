"""Who is asking: the client of a request, by its id and, if it has one, its secret (RFC 6749 §2.3).

The id of a project is a public client. Libraries send it in three ways, of which none is an error: in the form, as the
user of `Authorization: Basic` with an empty password, or both.
"""

import hashlib
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import NamedTuple
from urllib.parse import unquote_plus

from api.oauth.errors import OAuthError
from api.oauth.form import Form
from api.request.address import Sender
from api.request.headers import Headers
from projects.project import NO_PROJECT, KeyKind, Project
from statemachine.session import Flow

ReadProject = Callable[[str], Awaitable[tuple[Project | None, int]]]
"""Returns a project by its id, and the Redis time (milliseconds) by which its keys are to be judged."""

CHALLENGE = ((b"www-authenticate", b'Basic realm="login-relay"'),)  # RFC 6749 §5.2: if the client used this scheme


class Client(NamedTuple):
    """A checked client."""

    project: Project
    id: str
    secret: str | None
    is_backend: bool
    """Whether its secret is one that only backends and administrators have."""
    sender: Callable[[], Sender]

    @property
    def flow(self) -> Flow:
        """The interface that this is."""
        return Flow.DEVICE

    def key_name(self) -> str:
        """Return what tells the client's secret from others of the project, and is no secret."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16] if self.secret else "public-client"


class _Shown(NamedTuple):
    id: str
    secret: str | None
    by_basic: bool


class Clients:
    """Checks clients."""

    def __init__(
        self, read_project: ReadProject, backend_in_headers: Callable[[Headers], "tuple[str, str] | None"]
    ) -> None:
        """`backend_in_headers` returns the project's id and key if a backend shows them as it does elsewhere."""
        self._read_project = read_project
        self._backend_in_headers = backend_in_headers

    async def check(self, headers: Headers, form: Form, sender: Callable[[], Sender]) -> Client:
        """Check a client that logs in, refreshes or revokes. Its secret, if it has one, is the publishable key.

        Raises:
            OAuthError: `invalid_request`, `invalid_client`, or `unauthorized_client` if the project's OAuth is off.

        """
        client = await self._check(_shown(headers, form), sender, (KeyKind.PUBLISHABLE_CLIENT,), required=False)
        if not client.project.oauth.can_log_in:
            raise OAuthError("unauthorized_client")
        return client

    async def check_backend(self, headers: Headers, form: Form, sender: Callable[[], Sender]) -> Client:
        """Check a resource server or backend, whose secret is the server key or the admin key.

        Raises:
            OAuthError: `invalid_request` or `invalid_client`.

        """
        kinds = (KeyKind.SECRET_SERVER, KeyKind.SUPER_SECRET_ADMIN)
        elsewhere = self._backend_in_headers(headers)
        shown = _Shown(*elsewhere, by_basic=False) if elsewhere is not None else _shown(headers, form)
        return await self._check(shown, sender, kinds, required=True)

    async def _check(
        self, shown: _Shown, sender: Callable[[], Sender], kinds: tuple[KeyKind, ...], *, required: bool
    ) -> Client:
        found, now = await self._read_project(shown.id)
        project = found or NO_PROJECT  # as much work as for a project that there is
        is_wrong = required
        if shown.secret is not None:
            # All are compared, so that the time says nothing of which one it could be.
            matched = [project.keys[kind].matches(shown.secret, now) for kind in kinds]
            is_wrong = not any(matched)
        if found is None or is_wrong:
            raise OAuthError("invalid_client", headers=CHALLENGE if shown.by_basic else ())
        return Client(found, shown.id, shown.secret, required, sender)


def _shown(headers: Headers, form: Form) -> _Shown:
    in_form, form_secret = form.get("client_id"), form.get("client_secret")
    basic = _basic(headers.get(b"authorization", b""))
    if basic is None:
        if in_form is None:
            raise OAuthError("invalid_client")
        return _Shown(in_form, form_secret, by_basic=False)
    id_, secret = basic
    if in_form is not None and in_form != id_:
        raise OAuthError("invalid_request", "The client_id is another one than in the Authorization header.")
    if secret is not None and form_secret is not None:
        raise OAuthError("invalid_request", "Send the client's secret in one way only.")
    return _Shown(id_, secret if secret is not None else form_secret, by_basic=True)


def _basic(authorization: bytes) -> tuple[str, str | None] | None:
    """Return the id and the secret (None if it is empty) of Basic credentials; None if there are none.

    Raises:
        OAuthError: `invalid_client`: they cannot be read.

    """
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        id_, colon, secret = b64decode(encoded.strip(), validate=True).decode().partition(":")
        id_, secret = unquote_plus(id_, errors="strict"), unquote_plus(secret, errors="strict")  # RFC 6749 §2.3.1
    except ValueError:
        colon = id_ = secret = ""
    if not colon or not id_:
        raise OAuthError("invalid_client", headers=CHALLENGE)
    return id_, secret or None
