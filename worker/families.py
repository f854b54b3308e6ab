"""What each command means for its family of tokens: decisions committed, the failed entries out. As for sessions."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog

from statemachine.store.command_stream import Entry
from tokens.commands import FamilyCommand
from tokens.errors import UnreadableFamilyError
from tokens.family import Family, family_after
from tokens.lifecycle import Decision, Outcome
from tokens.machine import decide
from tokens.store.committing import FamilyChange, FamilyCommit, FamilyCommitting
from tokens.store.reading import Families
from worker import metrics
from worker.failures import MAX_ATTEMPTS, Failure

if TYPE_CHECKING:
    from worker.spans import BatchSpans

_log = structlog.get_logger("worker")


class FamilyItem(NamedTuple):
    """An entry and the command in it."""

    entry: Entry
    command: FamilyCommand
    conflicts: int = 0


class FamilyHandlers:
    """Decides the entries of a batch that are for families: a round reads all of them, and commits all decisions."""

    def __init__(self, families: Families, committing: FamilyCommitting, spans: "BatchSpans | None" = None) -> None:
        self._families = families
        self._committing = committing
        self._spans = spans

    async def handle(self, items: Sequence[FamilyItem]) -> list[Failure]:
        """Decide and commit, for each family in order; returns those that failed. All others are acknowledged."""
        failures: list[Failure] = []
        left = list(items)
        while left:
            left = await self._round(left, failures)
        return failures

    async def _round(self, items: Sequence[FamilyItem], failures: list[Failure]) -> list[FamilyItem]:
        """Decide and commit once; returns what conflicted, and the commands that follow a change of their family.

        Those are not decided on what the change will have made of it: if another worker is faster, the family has the
        same version with another successor.
        """
        started = time.time_ns()
        # Few subjects are ever logged out. The commit compares the cut-off, so it is read only after a conflict.
        with_cutoffs = any(item.conflicts for item in items)
        loaded = await self._families.load(list({item.command.family_id for item in items}), with_cutoffs=with_cutoffs)
        changing: set[str] = set()
        planned: list[FamilyItem] = []
        changes: list[FamilyChange] = []
        left: list[FamilyItem] = []
        for item in items:
            if item.command.family_id in changing:
                left.append(item)
                continue
            try:
                change = self._plan(item, loaded.by_id)
            except Exception as error:  # noqa: BLE001 - one entry's defect must not stop the others of its batch
                _log.exception("handler failed", entry=item.entry.id, session=item.command.family_id)
                failures.append(Failure(item.entry, f"handler failed: {type(error).__name__}", is_poison=True))
                continue
            planned.append(item)
            changes.append(change)
            if change.decision.target is not None:
                changing.add(item.command.family_id)
        commits = await self._committing.commit(changes)
        if self._spans is not None:
            self._spans.record(changes, commits, started)
        for item, change, result in zip(planned, changes, commits, strict=True):
            metrics.count_family(change, result)
            if result is FamilyCommit.CONFLICT and item.conflicts + 1 < MAX_ATTEMPTS:
                left.append(item._replace(conflicts=item.conflicts + 1))
            elif result is FamilyCommit.CONFLICT:
                failures.append(Failure(item.entry, "conflict", is_poison=False))
            elif result is FamilyCommit.FAILED:
                failures.append(Failure(item.entry, "redis refused the commit", is_poison=False))
        return left

    def _plan(self, item: FamilyItem, families: Mapping[str, Family | UnreadableFamilyError]) -> FamilyChange:
        entry, command, _ = item
        now = entry.recorded_at
        family = families.get(command.family_id)
        if isinstance(family, UnreadableFamilyError):
            raise family
        if family is None:
            return FamilyChange(None, None, Decision(None, Outcome.UNKNOWN), now, command, entry.id)
        decision = decide(family, command, now, self._committing.grace_ms)
        return FamilyChange(family, family_after(family, command, decision, now), decision, now, command, entry.id)
