"""Polling a login: its tool asks whether it is completed, and gets the refresh token, once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal, NamedTuple, assert_never, get_args

from api.logins.commanding import Commanding, Identity, identify
from api.logins.guard import Asker, Guard
from api.logins.proof import Proof
from api.logins.refusals import Busy, KeyReused, NotDoneInTime, PolledTooSoon, WrongPollingCode
from api.logins.waiting import Waiting
from api.request.metrics import POLLS
from api.request.note import asked_by, note_count, note_session
from api.request.time_limits import Limited, TimeLimits
from runtime.codes import PollingCode
from runtime.redis.keys import Keys
from statemachine.commands import ConsumeSession
from statemachine.handover import Handover
from statemachine.lifecycle import Outcome, Trigger
from statemachine.machine import decide
from statemachine.sealing import unseal
from statemachine.store.reading import ReadSession, Sessions

LEAST_SHARE_OF_INTERVAL = 0.8  # a tool whose clock runs fast, or whose answers come fast, is not to be refused

Gone = Callable[[], Awaitable[object]]
"""Returns once the client has gone away."""

Pollable = Literal[Outcome.WAITING, Outcome.CONSUMED, Outcome.USED, Outcome.DENIED, Outcome.CANCELLED, Outcome.EXPIRED]
"""The outcomes that a poll can have."""


class HandedOver(NamedTuple):
    """What the poll gets that consumed its session."""

    handover: Handover
    session_id: str
    at: int
    """Redis time in milliseconds."""
    age_s: int
    """How long ago the session was completed, in seconds; 0 unless the backend brought a token response."""


class Told(NamedTuple):
    """What a poll is told."""

    outcome: Pollable
    handed_over: HandedOver | None = None
    """If, and only if, this poll consumed the session."""


def pause_ms(interval_s: int) -> int:
    """Return the milliseconds that throttled polls of a pending session must leave between them."""
    return int(interval_s * 1000 * LEAST_SHARE_OF_INTERVAL)


class Polling:
    """Answers polls. The lifecycle (`statemachine.lifecycle`) says what each state means to one."""

    def __init__(
        self,
        store: Sessions,
        commanding: Commanding,
        waiting: Waiting,
        guard: Guard,
        keys: Keys,
        time_limits: TimeLimits,
        *,
        held_max: int,
        pause_ms: int,
    ) -> None:
        self._store = store
        self._commanding = commanding
        self._waiting = waiting
        self._guard = guard
        self._keys = keys
        self._time_limits = time_limits
        self._held, self._held_max = 0, held_max
        self._pause_ms = pause_ms
        """0: polls are not throttled."""

    async def ask(
        self, asker: Asker, polling_code: str, code_verifier: str | None, key: str | None, hold: float, gone: Gone
    ) -> Told:
        """Answer one poll; `key` is its Idempotency-Key.

        A poll of a pending session is held for up to `hold` seconds; `gone` returns when its client has.

        Raises:
            WrongPollingCode: its code names no session of the project, or its verifier is not that session's.
            TooManyWrongCodes: the same, and a budget is used up.
            KeyReused: the key came with another request before.
            PolledTooSoon: the session is pending and was polled too shortly before.

        """
        try:
            proof = Proof.of(asker, polling_code, code_verifier, len(self._keys.partitions))
            code = proof.code
            note_session(code.session_id)
            if not hold or self._held >= self._held_max:
                read, outcome = await self._look(proof, paced=True)
            else:
                read, outcome = await self._hold(proof, hold, gone)
        except WrongPollingCode as wrong:
            raise await self._guard.wrong_code(asker, wrong) from None
        except PolledTooSoon as poll:
            raise await self._guard.too_soon(asker, poll) from None
        if outcome is Outcome.CONSUMED:
            told = await self._consume(read, code, _identity(code, code_verifier, key))
        elif outcome is Outcome.USED and key is not None:
            told = await self._replay(read, code, _identity(code, code_verifier, key))
        else:
            told = _told(outcome)
        note_count(_COUNTERS[told.outcome])
        return told

    async def _look(self, proof: Proof, *, paced: bool) -> tuple[ReadSession, Outcome]:
        """Read the session and tell what a poll of it would come to now."""
        code, wait_ms = proof.code, 0
        if paced and self._pause_ms:
            read, wait_ms = await self._store.read_paced(code, proof.challenge, self._pause_ms)
        else:
            read = await self._store.read(code.session_id)
        read = proof.check(read)
        if wait_ms:
            raise PolledTooSoon(code.session_id, read.now, wait_ms)
        return read, decide(read.session, Trigger.CONSUME, read.now).outcome

    async def _hold(self, proof: Proof, hold: float, gone: Gone) -> tuple[ReadSession, Outcome]:
        """Look; while the session is pending, wait for a hint, for the time to be over or for the client to go."""
        loop = asyncio.get_running_loop()
        until = loop.time() + hold
        leaving = asyncio.ensure_future(gone())  # granian gives a future; a task for each held poll would be memory
        paced = True
        self._held += 1
        try:
            while True:
                # Registered first, looked at second: a change in between is not missed.
                with self._waiting.for_change(proof.code.session_id) as change:
                    read, outcome = await self._look(proof, paced=paced)
                    paced = False  # it is still the same poll
                    if leaving.done():
                        return read, Outcome.WAITING  # nobody would receive the token
                    if outcome is not Outcome.WAITING or loop.time() >= until or self._waiting.draining:
                        return read, outcome
                    del read  # not needed any more, and there may be ten thousand of them
                    over = _Over(change)
                    self._time_limits.watch(over, until)
                    leaving.add_done_callback(over)
                    try:
                        await change
                    finally:
                        self._time_limits.forget(over)
                        leaving.remove_done_callback(over)
        finally:
            self._held -= 1
            leaving.cancel()

    async def _consume(self, read: ReadSession, code: PollingCode, identity: Identity) -> Told:
        by = asked_by()
        command = ConsumeSession(
            identity.id,
            read.session.id,
            self._commanding.reply_to,
            self._commanding.patience_ms,
            request_id=by.request_id,
            traceparent=by.traceparent,
        )
        try:
            answer = await self._commanding.decide(command, identity.fingerprint)
        except (Busy, NotDoneInTime):
            # Not an error: published clients give up on one, and the next poll may well get the token.
            return _told(Outcome.WAITING)
        if answer.outcome is Outcome.CONSUMED:
            return await self._hand_over(read, code, answer.sealed_token)
        return _told(Outcome(answer.outcome))

    async def _replay(self, read: ReadSession, code: PollingCode, identity: Identity) -> Told:
        """Answer again a poll whose answer may have been lost: same code, same key."""
        [kept] = await self._store.read_outcomes(self._keys.partition_of(read.session.id), [identity.id])
        if kept is not None and not kept.is_of(identity.fingerprint):
            raise KeyReused
        if kept is not None and kept.outcome is Outcome.CONSUMED:
            return await self._hand_over(read, code, None)
        return _told(Outcome.USED)

    async def _hand_over(self, read: ReadSession, code: PollingCode, sealed_token: bytes | None) -> Told:
        session = read.session
        sealed = sealed_token or await self._store.read_sealed_token(session.id)
        if sealed is None:  # the replay window closed between two reads
            return _told(Outcome.USED)
        handover = Handover.of_text(unseal(sealed, code.text, session.project_id, session.id))
        # Only the tokens that a backend brought have begun to expire.
        age = await self._store.seconds_since_completed(session.id) if handover.token_response else 0
        return Told(Outcome.CONSUMED, HandedOver(handover, session.id, read.now, age))


def _identity(code: PollingCode, code_verifier: str | None, key: str | None) -> Identity:
    return identify(key, (code.text,), code.text, ("consume", code_verifier))


class _Over(Limited):
    """Ends the wait for a change when its time is over, or when its client has gone."""

    __slots__ = ("_change",)

    def __init__(self, change: "asyncio.Future[None]") -> None:
        self._change = change

    def expire(self) -> None:
        """End the wait."""
        if not self._change.done():
            self._change.set_result(None)

    def __call__(self, _: object) -> None:
        """Do the same, as a callback of a future."""
        self.expire()


def _told(outcome: Outcome) -> Told:
    """Return what a poll without a token is told."""
    match outcome:
        case Outcome.WAITING | Outcome.USED | Outcome.DENIED | Outcome.CANCELLED | Outcome.EXPIRED:
            return Told(outcome)
        case Outcome.PENDING:  # recorded before, with the same key; the next poll will know more
            return Told(Outcome.WAITING)
        case Outcome.UNKNOWN:  # gone since it was read
            return Told(Outcome.EXPIRED)
        case Outcome.CONSUMED | Outcome.COMPLETED | Outcome.REFUSED | Outcome.UNCHANGED:
            raise ValueError(f"a poll without a token cannot come to {outcome}")
        case _:
            assert_never(outcome)


_COUNTERS = {
    outcome: POLLS.labels("success" if outcome is Outcome.CONSUMED else outcome.value) for outcome in get_args(Pollable)
}
