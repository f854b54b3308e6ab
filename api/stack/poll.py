"""`POST /auth/cli/poll`: a tool asks whether its session is completed, and gets its refresh token, once."""

from typing import Annotated, Literal, assert_never, get_args

import msgspec
from litestar.openapi.spec import OpenAPIType, Schema
from msgspec import Meta

from api.logins.completing import refresh_token_of
from api.logins.polling import Pollable, Polling
from api.request.answer import Answer
from api.request.body import given
from api.request.endpoint import Asked
from api.stack.access import Access
from api.stack.described import (
    CODE_VERIFIER,
    IDEMPOTENCY_KEY,
    POLLING_CODE,
    REFRESH_TOKEN,
    answer,
    error_answers,
    header_parameter,
    json_bodies,
    json_request,
    operation,
    refusals,
)
from api.stack.errors import STORE_AWAY, TOO_MANY_WRONG_CODES, TOO_MUCH_AT_ONCE, TOO_SOON
from api.stack.fields import CodeVerifier, PollingCode
from statemachine.handover import Handover
from statemachine.lifecycle import Outcome

WithoutToken = Literal["waiting", "used", "denied", "expired"]
Word = WithoutToken | Literal["success"]


class PollRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session is asked about."""

    polling_code: PollingCode
    code_verifier: CodeVerifier = msgspec.UNSET


class PollStatus(msgspec.Struct, frozen=True):
    """An answer without a token: not completed yet, handed over before, denied, or over."""

    status: WithoutToken


class PollSuccess(msgspec.Struct, frozen=True):
    """The one answer with the token."""

    status: Literal["success"]
    refresh_token: Annotated[str, Meta(min_length=1, description="The token that completed the login.")]


_decoder = msgspec.json.Decoder(PollRequest)
_encoder = msgspec.json.Encoder()


def word(outcome: Pollable) -> Word:
    """Return what the clients of this interface call an outcome."""
    match outcome:
        case Outcome.WAITING:
            return "waiting"
        case Outcome.CONSUMED:
            return "success"
        case Outcome.USED:
            return "used"
        case Outcome.DENIED:
            return "denied"
        case Outcome.EXPIRED | Outcome.CANCELLED:
            return "expired"
        case _:
            assert_never(outcome)


_ANSWERS = {
    outcome: Answer(_encoder.encode(PollStatus(said)))
    for outcome in get_args(Pollable)
    if (said := word(outcome)) != "success"
}


STRUCTS = (PollRequest, PollStatus, PollSuccess)
_REFUSED = refusals(["INVALID_POLLING_CODE", "IDEMPOTENCY_KEY_REUSED"], too_many=[TOO_MANY_WRONG_CODES, TOO_SOON])
OPERATION = operation(
    "poll",
    "Ask whether a login is completed, and take its refresh token",
    "Client access or higher. Exactly one poll of a session gets the token.",
    {
        "200": answer(
            "There is no token for this poll.",
            json_bodies({PollStatus: {said: {"status": said} for said in get_args(WithoutToken)}}),
            ["preference-applied"],
            overridden=_REFUSED,
        ),
        "201": answer(
            "The token, for this poll only.",
            json_bodies({PollSuccess: {"success": {"status": "success", "refresh_token": REFRESH_TOKEN}}}),
            ["preference-applied"],
        ),
        **error_answers(_REFUSED, [TOO_MUCH_AT_ONCE, STORE_AWAY]),
    },
    header_parameter(
        "Prefer",
        "`wait=N` (RFC 7240): hold a pending poll until the session changes or N seconds are over.",
        Schema(type=OpenAPIType.STRING, examples=["wait=5"]),
    ),
    header_parameter(
        "Idempotency-Key",
        "Repeats the 201 for a minute, for the same polling code and key.",
        IDEMPOTENCY_KEY,
    ),
    body=json_request(
        PollRequest,
        {
            "poll": {"polling_code": POLLING_CODE},
            "bound": {"polling_code": POLLING_CODE, "code_verifier": CODE_VERIFIER},
        },
    ),
)


def _refresh_token(handover: Handover) -> str:
    """Return the refresh token of a handover. One is required to complete a session of this interface."""
    token = refresh_token_of(handover.token_response) if handover.token_response else handover.refresh_token
    if token is None:
        raise TypeError("a session of this interface was completed without a refresh token")
    return token


class Poll:
    """Answers polls."""

    operation = OPERATION

    def __init__(self, access: Access, polling: Polling, *, hold_s: int, longest_hold_s: int) -> None:
        self._access = access
        self._polling = polling
        self._hold_s = hold_s
        """For polls that do not say for how long."""
        self._longest_hold_s = longest_hold_s
        """For those that do."""

    async def __call__(self, asked: Asked) -> Answer:
        """Return 201 and the token to the one poll that gets it, else 200 and how the session stands."""
        caller = await self._access.check(asked.headers, asked.sender)
        body = await asked.json(_decoder)
        key, wait = asked.idempotency_key, asked.wait
        hold = self._hold_s if wait is None else min(wait, self._longest_hold_s)
        if hold:
            await asked.hold(hold)
        told = await self._polling.ask(
            caller,
            body.polling_code,
            given(body.code_verifier),
            key,
            hold,
            asked.gone,
        )
        applied = () if wait is None else ((b"preference-applied", b"wait=%d" % hold),)
        if told.handed_over is not None:
            return Answer(
                _encoder.encode(PollSuccess("success", _refresh_token(told.handed_over.handover))), 201, applied
            )
        answer = _ANSWERS[told.outcome]
        return answer._replace(headers=applied) if applied else answer
