"""`POST /auth/cli/poll`: a tool asks whether its session is completed, and gets its refresh token, once."""

import hmac
from typing import Any, Literal

import msgspec
from litestar import Request, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from api.access import Access
from api.body import idempotency_key, parse_body
from api.errors import KnownError
from api.outcomes import Outcomes, command_id
from api.waiting import Answer
from statemachine.commands import ConsumeSession
from statemachine.keys import Keys
from statemachine.machine import Outcome, Trigger, decide
from statemachine.sealing import unseal
from statemachine.session import PollingCode, Session, State, parse_polling_code
from statemachine.settings import Settings
from statemachine.store import SessionStore
from statemachine.stream import Busy, Moved

PATIENCE_MARGIN_MS = 1_000
# A consume is committed, if at all, this long before its poller stops waiting; so one whose poller was told `waiting`
# has not been committed and never will be, and the token stays for the next poll.


class PollRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body."""

    polling_code: str
    """The tool's secret, from initiate."""


class PollStatus(msgspec.Struct, frozen=True):
    """The body of an answer without a token."""

    status: Literal["waiting", "used", "expired"]


class PollSuccess(msgspec.Struct, frozen=True):
    """The body of the one answer with the token."""

    status: Literal["success"]
    refresh_token: str


_decoder = msgspec.json.Decoder(PollRequest)
_encoder = msgspec.json.Encoder()
_WAITING, _USED, _EXPIRED = (_encoder.encode(PollStatus(status)) for status in ("waiting", "used", "expired"))
_BODIES = {
    Outcome.WAITING: _WAITING,
    Outcome.USED: _USED,
    Outcome.EXPIRED: _EXPIRED,
    Outcome.PENDING: _WAITING,
    Outcome.UNKNOWN: _EXPIRED,
}


class Poller:
    """Answers polls. The table of `statemachine.machine` says what each state means to one."""

    def __init__(self, store: SessionStore, outcomes: Outcomes, keys: Keys, settings: Settings) -> None:
        self._store = store
        self._outcomes = outcomes
        self._keys = keys
        self._patience_ms = max(settings.outcome_wait_ms - PATIENCE_MARGIN_MS, settings.outcome_wait_ms // 2)
        self._replay_window_ms = settings.replay_window_ms

    async def answer(self, project_id: str, polling_code: str, key: str | None) -> ASGIResponse:
        """Answer one poll of the holder of `polling_code`; `key` is its Idempotency-Key."""
        code = parse_polling_code(polling_code, len(self._keys.partitions))
        read = await self._store.read(code.session_id) if code else None
        if (
            code is None
            or read is None
            or read.session.project_id != project_id
            or not hmac.compare_digest(read.polling_digest, code.digest)
        ):
            raise KnownError("INVALID_POLLING_CODE")
        outcome = decide(read.session, Trigger.CONSUME, read.now).outcome
        if outcome is Outcome.CONSUMED:
            return await self._consume(read.session, code, key)
        if outcome is Outcome.USED and key is not None:
            return await self._replay(read.session, code, key)
        return ASGIResponse(body=_BODIES[outcome])

    async def _consume(self, session: Session, code: PollingCode, key: str | None) -> ASGIResponse:
        id_ = command_id("consume", code.digest, key)
        command = ConsumeSession(id_, session.id, self._outcomes.reply_to, self._patience_ms)
        match await self._outcomes.of(command, State.COMPLETED, keep_ms=self._replay_window_ms):
            case Answer(Outcome.CONSUMED, sealed_token):
                return await self._success(session, code, sealed_token)
            case Answer(outcome):
                return ASGIResponse(body=_BODIES[outcome])
            case Moved(State.CONSUMED):
                return ASGIResponse(body=_USED)
            case Moved():
                return ASGIResponse(body=_EXPIRED)
            case Busy() | None:
                # Not an error: published clients give up on one, and the next poll may well get the token.
                return ASGIResponse(body=_WAITING)

    async def _replay(self, session: Session, code: PollingCode, key: str) -> ASGIResponse:
        """Answer again a poll whose answer may have been lost: same code, same key."""
        id_ = command_id("consume", code.digest, key)
        [outcome] = await self._store.read_outcomes([(self._keys.partition_of(session.id), id_)])
        if outcome is Outcome.CONSUMED:
            return await self._success(session, code, None)
        return ASGIResponse(body=_USED)

    async def _success(self, session: Session, code: PollingCode, sealed_token: bytes | None) -> ASGIResponse:
        sealed = sealed_token or await self._store.read_sealed_token(session.id)
        if sealed is None:  # the replay window closed between two reads
            return ASGIResponse(body=_USED)
        token = unseal(sealed, code.text, session.project_id, session.id)
        return ASGIResponse(body=_encoder.encode(PollSuccess("success", token)), status_code=201)


def poll_endpoint(access: Access, poller: Poller) -> HTTPRouteHandler:
    """Return the endpoint."""

    @post("/auth/cli/poll", status_code=200, operation_id="poll")
    async def poll(request: Request[Any, Any, Any]) -> ASGIResponse:
        headers = dict(request.scope["headers"])
        caller = await access.check(headers)
        body = parse_body(await request.body(), headers, _decoder)
        return await poller.answer(caller.project.id, body.polling_code, idempotency_key(headers))

    return poll
