"""The spans of a batch: its own, and one for each command, in the trace of the request that asked for it.

Imported only when traces are on.
"""

import time
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, get_current_span

from runtime.tracing import Tracing
from statemachine.store.committing import Commit, Transition


class BatchSpans:
    """Makes the spans of batches, afterwards: while one is decided, nothing is traced."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def record(self, transitions: Sequence[Transition], commits: Sequence[Commit], started: int) -> None:
        """Record a batch that was begun at `started` (nanoseconds since the epoch) and is committed now.

        The batch has a trace of its own: it serves many. Links lead from it to its commands, and back.
        """
        ended = time.time_ns()
        tracer = self._tracing.tracer
        traced = [
            (transition, commit, self._tracing.context(transition.command.traceparent))
            for transition, commit in zip(transitions, commits, strict=True)
            if transition.command and transition.command.traceparent
        ]
        asking = [get_current_span(context).get_span_context() for _, _, context in traced]
        if not any(context.trace_flags.sampled for context in asking):
            return
        batch = tracer.start_span(
            "batch",
            context=Context(),
            kind=SpanKind.CONSUMER,
            links=[Link(context) for context in asking],
            attributes={"messaging.system": "redis", "messaging.batch.message_count": len(transitions)},
            start_time=started,
        )
        for transition, commit, context in traced:
            span = tracer.start_span(
                type(transition.command).__name__,
                context=context,
                kind=SpanKind.CONSUMER,
                links=[Link(batch.get_span_context())],
                attributes=_attributes(transition, commit),
                start_time=started,
            )
            span.end(ended)
        batch.end(ended)


def _attributes(transition: Transition, commit: Commit) -> dict[str, str]:
    attributes = {
        "messaging.system": "redis",
        "messaging.operation.type": "process",
        "messaging.message.id": transition.entry_id,
        "login_relay.session_id": transition.before.id,
        "login_relay.commit": commit.value,
        "login_relay.outcome": transition.decision.outcome.value,
    }
    if transition.decision.target:
        attributes["login_relay.state"] = transition.decision.target.value
    return attributes
