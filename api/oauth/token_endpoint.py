"""`POST /oauth/token`: a client gets its tokens, for a device code (RFC 8628 §3.4) or a refresh token (RFC 6749 §6)."""

import asyncio
from typing import Annotated, Literal, assert_never

import msgspec
from litestar.openapi.spec import OpenAPIType, Parameter, Schema
from msgspec import Meta

from api.logins.polling import HandedOver, Pollable, Polling
from api.oauth.clients import Client
from api.oauth.described import ACCESS_TOKEN, DEVICE_CODE, REFRESH_TOKEN, operation, parameter
from api.oauth.errors import OAuthError, Word, answer, of_error
from api.oauth.exchange import Exchange
from api.oauth.form import Form
from api.oauth.metadata import DEVICE_CODE_GRANT, REFRESH_GRANT
from api.request.answer import Answer
from api.request.metrics import POLLS
from api.request.note import note_count
from api.tokens.introspecting import Introspecting
from api.tokens.refreshing import Refreshing
from runtime.redis.connections import REDIS_TROUBLE
from statemachine.lifecycle import Outcome
from tokens.access_tokens import AccessTokens, Grant

BOUND = "verifier"
"""Stands for the Idempotency-Key of a bound login: who has the verifier is the one that asked before."""

_STORE_AWAY = POLLS.labels("store_away")


class TokenResponse(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens that the relay mints (RFC 6749 §5.1)."""

    access_token: Annotated[str, Meta(description="A JWT (RFC 9068) for the project's resource servers.")]
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(ge=1, description="Seconds.")]
    scope: str
    refresh_token: Annotated[
        str | None, Meta(description="In place of the one that was sent; absent: that one stays.")
    ] = None


class BroughtTokens(msgspec.Struct, frozen=True):
    """Tokens that the backend brought (RFC 6749 §5.1), with whatever else it put beside them."""

    access_token: str
    token_type: str


class TokenEndpoint:
    """Answers clients that want tokens."""

    operation = operation(
        "token",
        "Get tokens",
        "A request for a device code is held until the login is approved, or the setting's time is over. A refresh "
        "replaces the refresh token; asked again within a minute, the one before gets the same answer.",
        [TokenResponse, BroughtTokens],
        {
            "the backend's own": {"access_token": "an-access-token", "token_type": "Bearer", "expires_in": 3_600},
            "tokens": {
                "access_token": ACCESS_TOKEN,
                "token_type": "Bearer",
                "expires_in": 300,
                "scope": "cli",
                "refresh_token": REFRESH_TOKEN,
            },
        },
        [
            parameter(
                "grant_type", f"`{DEVICE_CODE_GRANT}` or `{REFRESH_GRANT}`.", required=True, example=DEVICE_CODE_GRANT
            ),
            parameter("device_code", "For the first.", example=DEVICE_CODE),
            parameter("code_verifier", "For a login that is bound (RFC 7636)."),
            parameter("refresh_token", "For the second."),
            parameter("scope", "For the second: not more than was granted."),
        ],
        (
            *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
            *("invalid_scope", "authorization_pending", "slow_down", "access_denied", "expired_token"),
        ),
        too_many="invalid_grant",
        headers=[
            Parameter("Prefer", "header", Schema(type=OpenAPIType.STRING, examples=["wait=5"]), "`wait=N` (RFC 7240)."),
            Parameter("Idempotency-Key", "header", Schema(type=OpenAPIType.STRING), "Repeats the tokens for a minute."),
        ],
    )

    def __init__(
        self,
        polling: Polling,
        refreshing: Refreshing,
        introspecting: Introspecting,
        tokens: AccessTokens,
        *,
        hold_s: int,
        longest_hold_s: int,
        answer_within_s: float,
    ) -> None:
        self._polling = polling
        self._refreshing = refreshing
        self._introspecting = introspecting
        self._tokens_of = tokens
        self._hold_s = hold_s
        """For requests that do not say for how long."""
        self._longest_hold_s = longest_hold_s
        """For those that do."""
        self._answer_within_s = answer_within_s
        self._grants = {DEVICE_CODE_GRANT: self._device_code, REFRESH_GRANT: self._refresh}

    def check(self, form: Form) -> None:
        """Refuse a grant type that the relay does not know."""
        if "grant_type" not in form:
            raise OAuthError("invalid_request", "Send grant_type.")
        if form["grant_type"] not in self._grants:
            raise OAuthError("unsupported_grant_type")

    async def answer(self, exchange: Exchange) -> Answer:
        """Return the tokens, or raise why there are none."""
        return await self._grants[exchange.form["grant_type"]](exchange)

    def refusal(self, error: Exception, form: Form) -> Answer:
        """Return the answer to an error.

        A device code for which the store is away is pending, as far as anybody can know: real clients end on 503.
        """
        if form.get("grant_type") == DEVICE_CODE_GRANT and isinstance(error, REDIS_TROUBLE):
            note_count(_STORE_AWAY)
            return of_error(OAuthError("authorization_pending"))
        return of_error(error)

    async def _device_code(self, exchange: Exchange) -> Answer:
        asked, form, client = exchange
        if "device_code" not in form:
            raise OAuthError("invalid_request", "Send device_code.")
        wait, verifier = asked.wait, form.get("code_verifier")
        key = asked.idempotency_key if verifier is None else BOUND
        hold = self._hold_s if wait is None else min(wait, self._longest_hold_s)
        if hold:
            await asked.hold(hold)
        # Shorter than the limit of the request: past that, nobody would know any more that a device code was asked for.
        async with asyncio.timeout(hold + self._answer_within_s * 0.9):
            told = await self._polling.ask(client, form["device_code"], verifier, key, hold, asked.gone)
            if key is not None and told.handed_over is not None:
                await self._check_repeatable(told.handed_over, client)
        applied = () if wait is None else ((b"preference-applied", b"wait=%d" % hold),)
        if told.handed_over is None:
            raise OAuthError(word(told.outcome), headers=applied)
        return answer(self._tokens(told.handed_over, client), applied)

    async def _check_repeatable(self, handed_over: HandedOver, client: Client) -> None:
        """Refuse a request that may be a repetition, if its login was revoked or logged out since it was handed over.

        Only who has a key can repeat a request, and can ask again if this look at the store fails.

        Raises:
            OAuthError: `invalid_grant`.

        """
        if handed_over.handover.token_response:
            return
        if await self._introspecting.by_family(client.project.id, handed_over.session_id) is None:
            raise OAuthError("invalid_grant")

    def _tokens(self, handed_over: HandedOver, client: Client) -> bytes:
        handover, session_id, at, age_s = handed_over
        if handover.token_response:
            return brought_tokens(bytes(handover.token_response), age_s)
        grant = Grant(
            client.project.id,
            session_id,
            handover.subject or session_id,
            client.id,
            handover.scope or "",
            (client.project.oauth.audience or client.project.id,),
        )
        return self._minted(grant, at, handover.refresh_token)

    async def _refresh(self, exchange: Exchange) -> Answer:
        _, form, client = exchange
        if "refresh_token" not in form:
            raise OAuthError("invalid_request", "Send refresh_token.")
        refreshed = await self._refreshing.refresh(client, form["refresh_token"], client.id)
        family = refreshed.family
        grant = Grant(
            family.project_id,
            family.id,
            family.subject,
            family.client_id,
            _narrowed(family.scope, form.get("scope")),
            tuple(family.audience.split()) or (client.project.oauth.audience or client.project.id,),
            is_anonymous=family.anonymous,
        )
        return answer(self._minted(grant, refreshed.now, refreshed.refresh_token))

    def _minted(self, grant: Grant, now: int, refresh_token: str | None) -> bytes:
        token = self._tokens_of.sign(grant, now / 1000)
        response = TokenResponse(token, "Bearer", self._tokens_of.lifetime, grant.scope, refresh_token)
        return msgspec.json.encode(response)


def word(outcome: Pollable) -> Word:
    """Return what RFC 8628 calls an outcome without tokens (§3.5).

    Raises:
        TypeError: there are tokens.

    """
    match outcome:
        case Outcome.WAITING:
            return "authorization_pending"
        case Outcome.USED:
            return "invalid_grant"
        case Outcome.DENIED:
            return "access_denied"
        case Outcome.EXPIRED | Outcome.CANCELLED:
            return "expired_token"
        case Outcome.CONSUMED:
            raise TypeError("a login that was consumed has tokens")
        case _:
            assert_never(outcome)


def brought_tokens(response: bytes, age_s: int) -> bytes:
    """Return a backend's own token response as its client gets it, so many seconds after the backend brought it.

    `expires_in` is what is left. There is no `id_token`: a client would check its `iss`, which is not the relay.
    """
    tokens: dict[str, object] = msgspec.json.decode(response)
    tokens.pop("id_token", None)
    if isinstance(lifetime := tokens.get("expires_in"), int):
        tokens["expires_in"] = max(1, lifetime - age_s)
    return msgspec.json.encode(tokens)


def _narrowed(granted: str, asked: str | None) -> str:
    """Return the scope of a refresh (RFC 6749 §6).

    Raises:
        OAuthError: `invalid_scope`: more is asked for than was granted.

    """
    if asked is None:
        return granted
    wanted = asked.split(" ")
    if not set(wanted) <= set(granted.split(" ")):
        raise OAuthError("invalid_scope")
    return " ".join(dict.fromkeys(wanted))
