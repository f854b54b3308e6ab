"""The spans of a batch: its own, and one for each command, in the trace of the request that asked for it.

Imported only when traces are on.
"""

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, get_current_span

from runtime.tracing import Tracing
from statemachine.store.committing import Commit, Transition
from tokens.store.committing import FamilyChange, FamilyCommit


class BatchSpans:
    """Makes the spans of batches, afterwards: while one is decided, nothing is traced."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def record(
        self,
        decided: Sequence[Transition | FamilyChange],
        commits: Sequence[Commit | FamilyCommit],
        started: int,
    ) -> None:
        """Record a batch that was begun at `started` (nanoseconds since the epoch) and is committed now.

        The batch has a trace of its own: it serves many. Links lead from it to its commands, and back.
        """
        ended = time.time_ns()
        tracer = self._tracing.tracer
        traced = [
            (change, commit, self._tracing.context(change.command.traceparent))
            for change, commit in zip(decided, commits, strict=True)
            if change.command and change.command.traceparent
        ]
        asking = [get_current_span(context).get_span_context() for _, _, context in traced]
        if not any(context.trace_flags.sampled for context in asking):
            return
        batch = tracer.start_span(
            "batch",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=[Link(context) for context in asking],
            attributes={"messaging.system": "redis", "messaging.batch.message_count": len(decided)},
            start_time=started,
        )
        for change, commit, context in traced:
            span = tracer.start_span(
                type(change.command).__name__,
                context=context,
                kind=SpanKind.CONSUMER,
                links=[Link(batch.get_span_context())],
                attributes=_attributes(change, commit),
                start_time=started,
            )
            span.end(ended)
        batch.end(ended)


def _attributes(change: Transition | FamilyChange, commit: Commit | FamilyCommit) -> dict[str, str]:
    attributes = {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.message.id": change.entry_id,
        # A family has the id of the session that opened it.
        "login_relay.session_id": change.before.id if isinstance(change, Transition) else change.command.family_id,
        "login_relay.commit": commit.value,
        "login_relay.outcome": change.decision.outcome.value,
    }
    if change.decision.target:
        attributes["login_relay.state"] = change.decision.target.value
    return attributes
