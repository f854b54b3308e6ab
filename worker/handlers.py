"""What each command means for its session: one batch of entries in, decisions committed, the failed entries out."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from runtime.codes import is_session_id, partition_of
from statemachine.commands import Command, CompleteSession, decode_command
from statemachine.errors import UnreadableSessionError
from statemachine.machine import decide
from statemachine.session import TimedSession, session_after
from statemachine.store.command_stream import Entry
from statemachine.store.committing import Commit, Committing, Transition
from statemachine.store.reading import Sessions
from worker.commit import commit

if TYPE_CHECKING:
    from worker.spans import BatchSpans

MAX_ATTEMPTS = 3  # decisions per entry on conflict; then it stays pending for the reclaimer

_log = structlog.get_logger("worker")


class Failure(NamedTuple):
    """An entry that stays pending."""

    entry: Entry
    reason: str
    is_poison: bool
    """Whether the entry itself is at fault; if not, Redis is, or another worker was faster three times."""


class _Decoded(NamedTuple):
    entry: Entry
    command: Command


class Handlers:
    """Decides entries in batches: one round trip to read all their sessions, one to commit all decisions."""

    def __init__(
        self, sessions: Sessions, committing: Committing, pickup_window_ms: int, spans: "BatchSpans | None" = None
    ) -> None:
        self._sessions = sessions
        self._committing = committing
        self._spans = spans
        self._pickup_window_ms = pickup_window_ms

    async def handle(self, entries: Sequence[Entry]) -> list[Failure]:
        """Decide and commit entries in their order; returns those that failed. All others are acknowledged."""
        failures: list[Failure] = []
        decoded: list[_Decoded] = []
        for entry in entries:
            try:
                command = decode_command(entry.command)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # The text has the place and the expected type, and of the values only the name of an unknown type.
                failures.append(Failure(entry, f"undecodable: {error}", is_poison=True))
                continue
            if not is_session_id(command.session_id, entry.partition + 1) or (
                partition_of(command.session_id) != entry.partition
            ):
                failures.append(Failure(entry, "names no session of this partition", is_poison=True))
                continue
            decoded.append(_Decoded(entry, command))
        for _ in range(MAX_ATTEMPTS):
            if not decoded:
                return failures
            decoded = await self._attempt(decoded, failures)
        failures.extend(Failure(item.entry, "conflict", is_poison=False) for item in decoded)
        return failures

    async def _attempt(self, decoded: Sequence[_Decoded], failures: list[Failure]) -> list[_Decoded]:
        """Decide and commit once; returns the decoded whose session changed meanwhile."""
        started = time.time_ns()
        sessions = await self._sessions.load(list({item.command.session_id for item in decoded}))
        planned: list[_Decoded] = []
        transitions: list[Transition] = []
        for item in decoded:
            try:
                transition = self._plan(item, sessions)
            except Exception as error:  # noqa: BLE001 - one entry's defect must not stop the others of its batch
                _log.exception("handler failed", entry=item.entry.id, session=item.command.session_id)
                failures.append(Failure(item.entry, f"handler failed: {type(error).__name__}", is_poison=True))
                continue
            planned.append(item)
            transitions.append(transition)
            if item.command.session_id in sessions:
                # The next command of the same session is decided on what this one will have made of it.
                sessions[item.command.session_id] = transition.after
        commits = await commit(self._committing, transitions)
        if self._spans is not None:
            self._spans.record(transitions, commits, started)
        conflicts: list[_Decoded] = []
        for item, result in zip(planned, commits, strict=True):
            if result is Commit.CONFLICT:
                conflicts.append(item)
            elif result is Commit.FAILED:
                failures.append(Failure(item.entry, "redis refused the commit", is_poison=False))
        return conflicts

    def _plan(self, item: _Decoded, sessions: Mapping[str, TimedSession | UnreadableSessionError]) -> Transition:
        entry, command = item
        now = entry.recorded_at
        session = sessions.get(command.session_id)
        if isinstance(session, UnreadableSessionError):
            raise session
        if session is None:
            return Transition.of_unknown(command, now, entry.id)
        decision = decide(session, command.trigger, now)
        login_subject = command.login_subject if isinstance(command, CompleteSession) else None
        after = session_after(session, decision, now, self._pickup_window_ms, login_subject)
        return Transition(session, after, decision, now, command, entry.id)
