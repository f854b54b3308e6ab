"""`POST /auth/cli/poll`: a tool asks whether its session is completed, and gets its refresh token, once."""

from functools import partial
from typing import Annotated, Literal, assert_never, get_args

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from api.logins.commanding import answer_within
from api.logins.polling import Pollable, Polling
from api.request.address import sender
from api.request.body import parse_body
from api.request.endpoint import JsonRequest, JsonResponse, answer_in_time
from api.request.headers import idempotency_key, wait_preference
from api.stack.access import Access, asker
from runtime.settings import Settings, trusted_networks
from statemachine.lifecycle import Outcome

Word = Literal["waiting", "success", "used", "denied", "expired"]


class PollRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which session is asked about."""

    polling_code: Annotated[
        str,
        Meta(
            description="The tool's secret, from initiate.",
            extra_json_schema={"pattern": r"^lrp_[0-9a-f]{26}[A-Za-z0-9_-]{32}$"},
        ),
    ]
    code_verifier: (
        Annotated[
            str,
            Meta(
                description="What the `code_challenge` of initiate was made from. It comes with every poll of a "
                "session that has one, and with no other.",
                extra_json_schema={"pattern": r"^[A-Za-z0-9._~-]{43,128}$"},  # RFC 7636 §4.1
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET


class PollStatus(msgspec.Struct, frozen=True):
    """An answer without a token: not completed yet, handed over before, denied, or over."""

    status: Literal["waiting", "used", "denied", "expired"]


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
    outcome: JsonResponse(_encoder.encode(PollStatus(said)))
    for outcome in get_args(Pollable)
    if (said := word(outcome)) != "success"
}


def poll_endpoint(access: Access, polling: Polling, settings: Settings) -> HTTPRouteHandler:
    """Return the endpoint."""
    reading, answering = settings.request_timeout_ms / 1000, answer_within(settings.outcome_wait_ms)
    trusted = trusted_networks(settings)

    @post("/auth/cli/poll", status_code=200, operation_id="poll")
    async def poll(request: JsonRequest) -> JsonResponse:
        headers = dict(request.scope["headers"])
        wait = wait_preference(request.scope["headers"]) if b"prefer" in headers else None
        hold = settings.hold_polls_s if wait is None else min(wait, settings.long_poll_max_s)
        response = await answer_in_time(
            request, partial(answer, headers, hold), reading=reading, answering=hold + answering
        )
        if wait is None:
            return response
        return response._replace(headers=((b"preference-applied", f"wait={hold}".encode()),))

    async def answer(headers: dict[bytes, bytes], hold: int, request: JsonRequest, content: bytes) -> JsonResponse:
        caller = await access.check(headers)
        body = parse_body(content, headers, _decoder)
        told = await polling.ask(
            asker(caller, headers, partial(sender, request.scope, trusted)),
            body.polling_code,
            None if body.code_verifier is msgspec.UNSET else body.code_verifier,
            idempotency_key(headers),
            hold,
            request.receive,  # the body was read: all that can still come is that the client has gone
        )
        if told.refresh_token is None:
            return _ANSWERS[told.outcome]
        return JsonResponse(_encoder.encode(PollSuccess("success", told.refresh_token)), 201)

    return poll
