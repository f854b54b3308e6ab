"""Commits decisions, counts what became of each and logs every change of state."""

import logging
from collections.abc import Sequence

import structlog

from statemachine.store.committing import Commit, Committing, Transition
from worker import metrics

_log = structlog.get_logger("worker")


async def commit(committing: Committing, transitions: Sequence[Transition]) -> list[Commit]:
    """Commit decisions in order, in one round trip; returns what became of each."""
    commits = await committing.commit(transitions)
    metrics.count(transitions, commits)
    if _log.is_enabled_for(logging.DEBUG):
        for transition, result in zip(transitions, commits, strict=True):
            if result is Commit.COMMITTED and transition.decision.target:
                _log.debug(
                    "transition",
                    session_id=transition.before.id,
                    source=transition.before.state,
                    target=transition.after.state,
                    version=transition.after.version,
                    request_id=transition.command.request_id if transition.command else None,
                )
    return commits
