"""The endpoints of this room, by their paths and methods; without keys or a public URL each says that it is off."""

from collections.abc import Mapping
from typing import NamedTuple

from litestar.openapi.spec import Operation

from api.request.answer import Answer
from api.request.endpoint import Asked, Endpoint, Method
from api.stack.access import Access
from api.stack.after_login.anonymous import SignUp
from api.stack.after_login.current import RefreshCurrent, SignOut
from api.stack.after_login.me import GetMe
from api.stack.after_login.sessions import EndAllSessions, EndSession, ListSessions, OpenSession
from api.stack.after_login.token_endpoint import TokenEndpoint
from api.stack.after_login.users import Users
from api.stack.errors import TOKENS_OFF, PlainError
from api.tokens.introspecting import Introspecting
from api.tokens.logging_out import LoggingOut
from api.tokens.opening import OpeningFamilies
from api.tokens.refreshing import Refreshing
from api.tokens.revoking import Revoking
from api.tokens.signing_up import SigningUp
from tokens.access_tokens import AccessTokens

OPERATIONS: Mapping[str, Mapping[Method, Operation]] = {
    "/auth/oauth/token": {"POST": TokenEndpoint.operation},
    "/users/me": {"GET": GetMe.operation},
    "/auth/sessions": {
        "GET": ListSessions.operation,
        "POST": OpenSession.operation,
        "DELETE": EndAllSessions.operation,
    },
    "/auth/sessions/current": {"DELETE": SignOut.operation},
    "/auth/sessions/current/refresh": {"POST": RefreshCurrent.operation},
    "/auth/sessions/{session_id:str}": {"DELETE": EndSession.operation},
    "/auth/anonymous/sign-up": {"POST": SignUp.operation},
}


class UseCases(NamedTuple):
    """What the endpoints call."""

    refreshing: Refreshing
    revoking: Revoking
    introspecting: Introspecting
    logging_out: LoggingOut
    opening: OpeningFamilies
    signing_up: SigningUp


class Off:
    """Answers that sessions are off."""

    def __init__(self, operation: Operation) -> None:
        self.operation = operation

    async def __call__(self, asked: Asked) -> Answer:
        """Refuse."""
        await asked.body()
        raise PlainError(404, TOKENS_OFF)


def endpoints(
    access: Access, use_cases: UseCases, tokens: AccessTokens | None
) -> Mapping[str, Mapping[Method, Endpoint]]:
    """Return the endpoints by their paths and methods."""
    if tokens is None:
        return {
            path: {method: Off(operation) for method, operation in of_path.items()}
            for path, of_path in OPERATIONS.items()
        }
    refreshing, revoking, introspecting, logging_out, opening, signing_up = use_cases
    users = Users(access, tokens, introspecting)
    return {
        "/auth/oauth/token": {"POST": TokenEndpoint(access, refreshing, tokens)},
        "/users/me": {"GET": GetMe(users)},
        "/auth/sessions": {
            "GET": ListSessions(users, introspecting),
            "POST": OpenSession(users, opening, tokens),
            "DELETE": EndAllSessions(users, logging_out),
        },
        "/auth/sessions/current": {"DELETE": SignOut(users, introspecting, revoking)},
        "/auth/sessions/current/refresh": {"POST": RefreshCurrent(users, refreshing, tokens)},
        "/auth/sessions/{session_id:str}": {"DELETE": EndSession(users, introspecting, revoking)},
        "/auth/anonymous/sign-up": {"POST": SignUp(users, signing_up, tokens)},
    }
