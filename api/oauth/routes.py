"""The endpoints of this interface, by their paths; without keys or a public URL each says that OAuth is off."""

from typing import NamedTuple

from litestar.openapi.spec import Operation

from api.logins.cancelling import Cancelling
from api.logins.initiating import Initiating
from api.logins.polling import Polling
from api.oauth.clients import Clients
from api.oauth.device_authorization import DeviceAuthorizationEndpoint
from api.oauth.errors import OFF, OAuthError
from api.oauth.exchange import ClientEndpoint
from api.oauth.introspection import IntrospectionEndpoint
from api.oauth.revocation import RevocationEndpoint
from api.oauth.token_endpoint import TokenEndpoint
from api.request.answer import Answer
from api.request.endpoint import Asked, Endpoint
from api.tokens.introspecting import Introspecting
from api.tokens.refreshing import Refreshing
from api.tokens.revoking import Revoking
from tokens.access_tokens import AccessTokens


class UseCases(NamedTuple):
    """What the endpoints call."""

    initiating: Initiating
    polling: Polling
    cancelling: Cancelling
    refreshing: Refreshing
    revoking: Revoking
    introspecting: Introspecting


class Times(NamedTuple):
    """The times of this interface, in seconds."""

    interval: int
    hold: int
    """For requests for a token that do not say for how long."""
    longest_hold: int
    """For those that do."""
    answer_within: float
    """Whatever happens to workers and Redis."""


OPERATIONS: dict[str, Operation] = {
    "/oauth/device_authorization": DeviceAuthorizationEndpoint.operation,
    "/oauth/token": TokenEndpoint.operation,
    "/oauth/revoke": RevocationEndpoint.operation,
    "/oauth/introspect": IntrospectionEndpoint.operation,
}


class Off:
    """Answers that OAuth is off."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    async def __call__(self, asked: Asked) -> Answer:
        """Refuse."""
        await asked.body()
        raise OAuthError("invalid_request", OFF, status=404)


def endpoints(clients: Clients, use_cases: UseCases, tokens: AccessTokens | None, times: Times) -> dict[str, Endpoint]:
    """Return the endpoints of POST by their paths."""
    if tokens is None:
        return {path: Off(operation) for path, operation in OPERATIONS.items()}
    device = DeviceAuthorizationEndpoint(use_cases.initiating, times.interval)
    token = TokenEndpoint(
        use_cases.polling,
        use_cases.refreshing,
        use_cases.introspecting,
        tokens,
        hold_s=times.hold,
        longest_hold_s=times.longest_hold,
        answer_within_s=times.answer_within,
    )
    revocation = RevocationEndpoint(use_cases.revoking, use_cases.cancelling, tokens)
    introspection = IntrospectionEndpoint(use_cases.introspecting, tokens)
    return {
        "/oauth/device_authorization": ClientEndpoint(device, clients.check),
        "/oauth/token": ClientEndpoint(token, clients.check),
        "/oauth/revoke": ClientEndpoint(revocation, clients.check),
        "/oauth/introspect": ClientEndpoint(introspection, clients.check_backend),
    }
