"""`POST /auth/cli/poll`: a tool asks whether its session is completed, and gets its refresh token, once."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Literal, NamedTuple

import msgspec
from litestar import post
from litestar.handlers import HTTPRouteHandler
from msgspec import Meta

from api.logins.commanding import Outcomes, answer_within, command_id
from api.logins.guard import Guard, PollTooSoonError, WrongCodeError
from api.logins.waiting import Answer, Waiting
from api.request.body import parse_body
from api.request.endpoint import JsonRequest, JsonResponse, answer_in_time
from api.request.headers import idempotency_key, wait_preference
from api.request.metrics import POLLS
from api.request.note import asked_by, note_count, note_session
from api.stack.access import Access
from api.stack.errors import KnownError
from runtime.codes import PollingCode, parse_polling_code, s256
from runtime.redis.keys import Keys
from runtime.settings import Settings
from statemachine.commands import ConsumeSession
from statemachine.lifecycle import Outcome, State, Trigger
from statemachine.machine import decide
from statemachine.sealing import unseal
from statemachine.session import Session
from statemachine.store.command_stream import Busy, Moved
from statemachine.store.sessions import SessionStore

PAUSE_MS_PER_INTERVAL_S = 800  # a tool whose clock runs fast, or whose answers come fast, is not to be told off
PATIENCE_MARGIN_MS = 1_000
# A consume is committed, if at all, this long before its poller stops waiting; so one whose poller was told `waiting`
# has not been committed and never will be, and the token stays for the next poll.


Gone = Callable[[], Awaitable[object]]
"""Returns once the client has gone away."""


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
    """An answer without a token: not completed yet, handed over before, or over."""

    status: Literal["waiting", "used", "expired"]


class PollSuccess(msgspec.Struct, frozen=True):
    """The one answer with the token."""

    status: Literal["success"]
    refresh_token: Annotated[str, Meta(min_length=1, description="The token that completed the login.")]


_decoder = msgspec.json.Decoder(PollRequest)
_encoder = msgspec.json.Encoder()
_ANSWERS = {status: JsonResponse(_encoder.encode(PollStatus(status))) for status in ("waiting", "used", "expired")}
_COUNTERS = {status: POLLS.labels(status) for status in (*_ANSWERS, "success")}
_STATUSES = {
    Outcome.WAITING: "waiting",
    Outcome.USED: "used",
    Outcome.EXPIRED: "expired",
    Outcome.PENDING: "waiting",
    Outcome.UNKNOWN: "expired",
}


def _told(status: str) -> JsonResponse:
    """Return an answer without a token."""
    note_count(_COUNTERS[status])
    return _ANSWERS[status]


class Poller:
    """Answers polls. The table of `statemachine.machine` says what each state means to one."""

    def __init__(
        self, store: SessionStore, outcomes: Outcomes, waiting: Waiting, keys: Keys, settings: Settings
    ) -> None:
        self._store = store
        self._outcomes = outcomes
        self._waiting = waiting
        self._keys = keys
        self._patience_ms = max(settings.outcome_wait_ms - PATIENCE_MARGIN_MS, settings.outcome_wait_ms // 2)
        self._replay_window_ms = settings.replay_window_ms
        self._held, self._held_max = 0, settings.held_polls_max
        self._pause_ms = settings.poll_interval_s * PAUSE_MS_PER_INTERVAL_S if settings.throttle_polls else 0

    async def answer(
        self, project_id: str, poll: PollRequest, key: str | None, hold: float, gone: Gone
    ) -> JsonResponse:
        """Answer one poll; `key` is its Idempotency-Key.

        A pending poll is held for up to `hold` seconds; `gone` returns when its client has.

        Raises:
            WrongCodeError: its code names no session of the project, or its verifier is not that session's.
            PollTooSoonError: the session is pending and was polled too shortly before.

        """
        code = parse_polling_code(poll.polling_code, len(self._keys.partitions))
        if code is None:
            raise _wrong_code()
        note_session(code.session_id)
        poller = _Poller(project_id, code, b"" if poll.code_verifier is msgspec.UNSET else s256(poll.code_verifier))
        if not hold or self._held >= self._held_max:
            session, outcome = await self._look(poller, paced=True)
        else:
            session, outcome = await self._hold(poller, hold, gone)
        if outcome is Outcome.CONSUMED:
            return await self._consume(session, code, key)
        if outcome is Outcome.USED and key is not None:
            return await self._replay(session, code, key)
        return _told(_STATUSES[outcome])

    async def _look(self, poller: "_Poller", *, paced: bool) -> tuple[Session, Outcome]:
        """Read the session and tell what a poll of it would come to now."""
        code, wait_ms = poller.code, 0
        if paced and self._pause_ms:
            read, wait_ms = await self._store.read_paced(code, poller.challenge, self._pause_ms)
        else:
            read = await self._store.read(code.session_id)
        if (
            read is None
            or read.session.project_id != poller.project_id
            or not hmac.compare_digest(read.polling_digest, code.digest)
        ):
            raise _wrong_code()
        if not hmac.compare_digest(read.code_challenge, poller.challenge):
            raise _wrong_code(unbound=code.session_id)
        if wait_ms:
            raise PollTooSoonError(code.session_id, read.now, wait_ms)
        return read.session, decide(read.session, Trigger.CONSUME, read.now).outcome

    async def _hold(self, poller: "_Poller", hold: float, gone: Gone) -> tuple[Session, Outcome]:
        """Look; while the session is pending, wait for a hint, for the time to be over or for the client to go."""
        loop = asyncio.get_running_loop()
        until = loop.time() + hold
        leaving = asyncio.ensure_future(gone())  # granian gives a future; a task for each held poll would be memory
        paced = True
        self._held += 1
        try:
            while True:
                # Registered first, looked at second: a change in between is not missed.
                with self._waiting.for_change(poller.code.session_id) as change:
                    session, outcome = await self._look(poller, paced=paced)
                    paced = False  # it is still the same poll
                    if leaving.done():
                        return session, Outcome.WAITING  # nobody would receive the token
                    if outcome is not Outcome.WAITING or loop.time() >= until or self._waiting.draining:
                        return session, outcome
                    wake = partial(_wake, change)
                    leaving.add_done_callback(wake)
                    timer = loop.call_at(until, wake, None)
                    try:
                        await change
                    finally:
                        timer.cancel()
                        leaving.remove_done_callback(wake)
        finally:
            self._held -= 1
            leaving.cancel()

    async def _consume(self, session: Session, code: PollingCode, key: str | None) -> JsonResponse:
        id_ = command_id("consume", code.digest, key)
        command = ConsumeSession(id_, session.id, self._outcomes.reply_to, self._patience_ms, *asked_by())
        match await self._outcomes.of(command, State.COMPLETED, keep_ms=self._replay_window_ms):
            case Answer(Outcome.CONSUMED, sealed_token):
                return await self._success(session, code, sealed_token)
            case Answer(outcome):
                return _told(_STATUSES[outcome])
            case Moved(State.CONSUMED):
                return _told("used")
            case Moved():
                return _told("expired")
            case Busy() | None:
                # Not an error: published clients give up on one, and the next poll may well get the token.
                return _told("waiting")

    async def _replay(self, session: Session, code: PollingCode, key: str) -> JsonResponse:
        """Answer again a poll whose answer may have been lost: same code, same key."""
        id_ = command_id("consume", code.digest, key)
        [outcome] = await self._store.read_outcomes(self._keys.partition_of(session.id), [id_])
        if outcome is Outcome.CONSUMED:
            return await self._success(session, code, None)
        return _told("used")

    async def _success(self, session: Session, code: PollingCode, sealed_token: bytes | None) -> JsonResponse:
        sealed = sealed_token or await self._store.read_sealed_token(session.id)
        if sealed is None:  # the replay window closed between two reads
            return _told("used")
        token = unseal(sealed, code.text, session.project_id, session.id)
        note_count(_COUNTERS["success"])
        return JsonResponse(_encoder.encode(PollSuccess("success", token)), 201)


def _wake(change: "asyncio.Future[None]", _: object) -> None:
    if not change.done():
        change.set_result(None)


class _Poller(NamedTuple):
    """What a poller shows of itself."""

    project_id: str
    code: PollingCode
    challenge: bytes
    """What its verifier gives; empty if it sent none."""


def _wrong_code(unbound: str | None = None) -> WrongCodeError:
    return WrongCodeError("polling", KnownError("INVALID_POLLING_CODE"), unbound=unbound)


def poll_endpoint(access: Access, guard: Guard, poller: Poller, settings: Settings) -> HTTPRouteHandler:
    """Return the endpoint."""
    reading, answering = settings.request_timeout_ms / 1000, answer_within(settings)

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
        key = idempotency_key(headers)

        try:
            # The body was read: all that can still come is that the client has gone.
            return await poller.answer(caller.project.id, body, key, hold, request.receive)
        except WrongCodeError as wrong:
            raise await guard.wrong_code(wrong, caller, request) from None
        except PollTooSoonError as poll:
            raise await guard.too_soon(poll, caller, request) from None

    return poll
