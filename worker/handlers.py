"""What each command means for its session: one batch of entries in, decisions committed, the failed entries out."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import structlog

from runtime.codes import is_session_id, partition_of
from statemachine.commands import Command, CompleteSession, decode_command
from statemachine.errors import UnreadableSessionError
from statemachine.machine import decision
from statemachine.session import TimedSession, is_overdue, session_after
from statemachine.store.command_stream import Entry
from statemachine.store.committing import Commit, Committing, Transition
from statemachine.store.reading import Sessions, session_in_entry
from tokens.commands import FamilyCommand
from worker.commit import commit
from worker.failures import MAX_ATTEMPTS, Failure
from worker.families import FamilyHandlers, FamilyItem

if TYPE_CHECKING:
    from worker.spans import BatchSpans

_log = structlog.get_logger("worker")

_Known = dict[str, TimedSession | UnreadableSessionError]
"""Sessions by their ids; one that is not in it does not exist."""


class _Decoded(NamedTuple):
    entry: Entry
    command: Command
    conflicts: int = 0
    logged_out: bool = False
    """Whether the subject was logged out everywhere since the completion."""


class Handlers:
    """Decides entries in batches: one round trip to commit all decisions, and often no other.

    An entry has what its session was when it was recorded, and is decided on that. The commit compares state and
    version, so if the session has changed since, the worker reads it and decides again.
    """

    def __init__(
        self,
        sessions: Sessions,
        committing: Committing,
        families: FamilyHandlers,
        pickup_window_ms: int,
        spans: "BatchSpans | None" = None,
    ) -> None:
        self._sessions = sessions
        self._families = families
        self._committing = committing
        self._spans = spans
        self._pickup_window_ms = pickup_window_ms

    async def handle(self, entries: Sequence[Entry]) -> list[Failure]:
        """Decide and commit entries, those of one session in their order; returns those that failed.

        All others are acknowledged.
        """
        failures: list[Failure] = []
        decoded: list[_Decoded] = []
        of_families: list[FamilyItem] = []
        sessions: _Known = {}
        for entry in entries:
            try:
                command = decode_command(entry.command)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                # The text has the place and the expected type, and of the values only the name of an unknown type.
                failures.append(Failure(entry, f"undecodable: {error}", is_poison=True))
                continue
            # A family has the id of the session that opened it.
            id_ = command.family_id if isinstance(command, FamilyCommand) else command.session_id
            if not is_session_id(id_, entry.partition + 1) or partition_of(id_) != entry.partition:
                failures.append(Failure(entry, "names no session of this partition", is_poison=True))
                continue
            if isinstance(command, FamilyCommand):
                of_families.append(FamilyItem(entry, command))
                continue
            decoded.append(_Decoded(entry, command))
            # What was recorded last is the newest; an entry that was taken over is likely to be out of date.
            if entry.session and entry.deliveries == 1:
                seen = session_in_entry(command.session_id, entry.session)
                if seen is not None:
                    sessions[command.session_id] = seen
        while decoded:
            decoded = await self._round(decoded, sessions, failures)
            sessions = {}
        if of_families:
            failures += await self._families.handle(of_families)
        return failures

    async def _round(self, decoded: Sequence[_Decoded], sessions: _Known, failures: list[Failure]) -> list[_Decoded]:
        """Decide and commit once, on `sessions` or, if not there, on what is read; returns what is left to decide.

        That is what conflicted, and the commands that follow a change of the same session. They are not decided on
        what the change will have made of it: if another worker is faster, the session has the same state and version
        with another deadline and another subject.
        """
        started = time.time_ns()
        unknown = {item.command.session_id for item in decoded} - sessions.keys()
        if unknown:
            sessions |= await self._sessions.load(list(unknown))
        changing: set[str] = set()
        planned: list[_Decoded] = []
        transitions: list[Transition] = []
        left: list[_Decoded] = []
        for item in decoded:
            if item.command.session_id in changing:
                left.append(item)
                continue
            transition = self._plan(item, sessions)
            if isinstance(transition, Failure):
                failures.append(transition)
                continue
            planned.append(item)
            transitions.append(transition)
            if transition.decision.target is not None:
                changing.add(item.command.session_id)
        commits = await commit(self._committing, transitions)
        if self._spans is not None:
            self._spans.record(transitions, commits, started)
        return _conflicting(planned, commits, failures) + left

    def _plan(self, item: _Decoded, sessions: _Known) -> Transition | Failure:
        entry = item.entry
        try:
            return self._decide(item, sessions)
        except Exception as error:  # noqa: BLE001 - one entry's defect must not stop the others of its batch
            _log.exception("handler failed", entry=entry.id, session=item.command.session_id)
            return Failure(entry, f"handler failed: {type(error).__name__}", is_poison=True)

    def _decide(self, item: _Decoded, sessions: _Known) -> Transition:
        entry, command = item.entry, item.command
        now = entry.recorded_at
        session = sessions.get(command.session_id)
        if isinstance(session, UnreadableSessionError):
            raise session
        if session is None:
            return Transition.of_unknown(command, now, entry.id)
        # A login that was not picked up before its subject was logged out is as good as overdue.
        decided = decision(session.state, command.trigger, overdue=item.logged_out or is_overdue(session, now))
        login_subject = opens = None
        if isinstance(command, CompleteSession):
            login_subject, opens = command.login_subject, command.opens
        after = session_after(session, decided, now, self._pickup_window_ms, login_subject, opens)
        return Transition(session, after, decided, now, command, entry.id)


def _conflicting(decided: Sequence[_Decoded], commits: Sequence[Commit], failures: list[Failure]) -> list[_Decoded]:
    """Return what must be decided again; add what stays pending to the failures."""
    again: list[_Decoded] = []
    for item, result in zip(decided, commits, strict=True):
        if result is Commit.FAILED:
            failures.append(Failure(item.entry, "redis refused the commit", is_poison=False))
        elif result is Commit.LOGGED_OUT:
            again.append(item._replace(logged_out=True))
        elif result is Commit.CONFLICT and item.conflicts + 1 == MAX_ATTEMPTS:
            failures.append(Failure(item.entry, "conflict", is_poison=False))
        elif result is Commit.CONFLICT:
            again.append(item._replace(conflicts=item.conflicts + 1))
    return again
