"""`POST /auth/cli`: a tool asks for a session."""

from typing import Annotated, Any

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from msgspec import Meta

from api.access import Access
from api.body import parse_body
from api.errors import PlainError
from statemachine.events import rfc3339
from statemachine.session import ClientFacts, display_login_code
from statemachine.settings import Settings
from statemachine.store import SessionStore

Fact = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
"""Shown to people: printable."""

ANONYMOUS_SESSIONS = "Anonymous sessions are not supported yet: send the request without anon_refresh_token."


class InitiateRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body; every field is optional, and so is the body."""

    expires_in_millis: Annotated[int, Meta(ge=1_000, le=86_400_000)] | msgspec.UnsetType = msgspec.UNSET
    """Life of the session in milliseconds; the relay's setting if absent."""
    anon_refresh_token: str | msgspec.UnsetType = msgspec.UNSET
    """Reserved."""
    client_name: Fact | None = None
    """Name of the tool."""
    client_version: Fact | None = None
    """Version of the tool."""
    hostname: Fact | None = None
    """Machine that the tool runs on."""


class InitiateResponse(msgspec.Struct, frozen=True):
    """The body of the answer."""

    polling_code: str
    """The tool's secret."""
    login_code: str
    """The code to show to the person."""
    expires_at: str
    """RFC 3339, UTC, milliseconds."""
    interval: int
    """Seconds that a poller should leave between polls."""
    session_id: str
    """Names the session in events and logs; no secret."""


_decoder = msgspec.json.Decoder(InitiateRequest)
_encoder = msgspec.json.Encoder()


def initiate_endpoint(access: Access, store: SessionStore, settings: Settings) -> HTTPRouteHandler:
    """Return the endpoint."""

    @post("/auth/cli", status_code=200, operation_id="initiate")
    async def initiate(request: Request[Any, Any, Any]) -> ASGIResponse:
        headers = dict(request.scope["headers"])
        caller = await access.check(headers)
        body = parse_body(await request.body(), headers, _decoder)
        if body.anon_refresh_token is not msgspec.UNSET:
            raise PlainError(400, ANONYMOUS_SESSIONS)
        lifetime_ms = body.expires_in_millis or settings.session_lifetime_ms
        facts = ClientFacts(body.client_name, body.client_version, body.hostname)
        initiated = await store.initiate(caller.project.id, facts, lifetime_ms)
        return ASGIResponse(
            body=_encoder.encode(
                InitiateResponse(
                    polling_code=initiated.polling_code,
                    login_code=display_login_code(initiated.login_code),
                    expires_at=rfc3339(initiated.expires_at),
                    interval=settings.poll_interval_s,
                    session_id=initiated.session_id,
                )
            )
        )

    return initiate
