"""`POST /oauth/device_authorization`: a client asks for a login and gets both codes (RFC 8628 §3.1)."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

from api.logins.initiating import Initiating
from api.oauth.described import DEVICE_CODE, operation, parameter
from api.oauth.errors import OAuthError, answer
from api.oauth.exchange import Exchange, PlainRefusals
from api.oauth.form import Form
from api.request.answer import Answer
from api.request.printable import is_printable
from runtime.codes import (
    CODE_CHALLENGE_SHAPE,
    DEVICE_CODE_SHAPE,
    LOGIN_CODE_SHAPE,
    SESSION_ID_SHAPE,
    display_login_code,
)
from statemachine.session import MAX_FACT_LENGTH, MAX_FACTS_BYTES, ClientFacts, DeviceRequest

_CHALLENGE = re.compile(CODE_CHALLENGE_SHAPE)
_FACTS = ("client_name", "client_version", "hostname")


class DeviceAuthorization(msgspec.Struct, frozen=True):
    """A new login (RFC 8628 §3.2)."""

    device_code: Annotated[str, Meta(pattern=f"^{DEVICE_CODE_SHAPE}$", description="The client's secret.")]
    user_code: Annotated[str, Meta(pattern=f"^{LOGIN_CODE_SHAPE}$", description="For the person.")]
    verification_uri: Annotated[str, Meta(description="The page where the person enters it.")]
    verification_uri_complete: Annotated[str, Meta(description="The same page with the code in it.")]
    expires_in: Annotated[int, Meta(ge=0, description="Seconds until the login ends unless it is approved.")]
    interval: Annotated[int, Meta(ge=1, le=60, description="Seconds to leave between two requests for the token.")]
    session_id: Annotated[str, Meta(pattern=f"^{SESSION_ID_SHAPE}$", description="Names it in events and logs.")]


class DeviceAuthorizationEndpoint(PlainRefusals):
    """Answers a client that asks for a login."""

    operation = operation(
        "device_authorization",
        "Start a login (RFC 8628)",
        "For any OAuth client of a project that lets them log in.",
        DeviceAuthorization,
        {
            "login": {
                "device_code": DEVICE_CODE,
                "user_code": "WDJB-MJHT-XKQP",
                "verification_uri": "https://app.example.com/device",
                "verification_uri_complete": "https://app.example.com/device?user_code=WDJB-MJHT-XKQP",
                "expires_in": 900,
                "interval": 2,
                "session_id": "0084b16ba1cbbb1e5a92d2ff3d",
            }
        },
        [
            parameter("scope", "Scopes separated by spaces; those that the project does not know are dropped."),
            parameter("code_challenge", "Binds the login (RFC 7636): the token then needs its `code_verifier`."),
            parameter("code_challenge_method", "`S256`, the only one."),
            *(parameter(name, "Shown to the person who approves.") for name in _FACTS),
        ],
        ("invalid_request", "invalid_client", "unauthorized_client"),
        too_many="temporarily_unavailable",
    )

    def __init__(self, initiating: Initiating, interval_s: int) -> None:
        self._initiating = initiating
        self._interval_s = interval_s

    async def answer(self, exchange: Exchange) -> Answer:
        """Return both codes of a new session."""
        _, form, client = exchange
        oauth = client.project.oauth
        started = await self._initiating.start(
            client,
            _facts(form),
            lifetime_ms=None,
            code_challenge=_challenge(form),
            device=DeviceRequest(client.id, oauth.granted(form.get("scope"))),
        )
        user_code = display_login_code(started.login_code)
        body = DeviceAuthorization(
            started.polling_code,
            user_code,
            oauth.verification_uri,
            oauth.complete_uri(user_code),
            started.lifetime_ms // 1000,
            self._interval_s,
            started.session_id,
        )
        return answer(msgspec.json.encode(body))


def _challenge(form: Form) -> str | None:
    challenge, method = form.get("code_challenge"), form.get("code_challenge_method")
    if challenge is None and method is None:
        return None
    if method != "S256":  # absent means `plain` (RFC 7636 §4.3)
        raise OAuthError("invalid_request", "Send code_challenge with code_challenge_method=S256: it is the only one.")
    if challenge is None or not _CHALLENGE.fullmatch(challenge):
        raise OAuthError("invalid_request", "The code_challenge is not 43 characters of base64url (RFC 7636, S256).")
    return challenge


def _facts(form: Form) -> ClientFacts:
    facts = [form.get(name) for name in _FACTS]
    given = [fact for fact in facts if fact is not None]
    if not all(len(fact) <= MAX_FACT_LENGTH and is_printable(fact) for fact in given):
        raise OAuthError("invalid_request", f"{', '.join(_FACTS)}: at most {MAX_FACT_LENGTH} visible characters each.")
    if sum(len(fact.encode()) for fact in given) > MAX_FACTS_BYTES:
        raise OAuthError("invalid_request", f"{', '.join(_FACTS)}: at most {MAX_FACTS_BYTES} bytes together.")
    return ClientFacts(*facts)
