"""The spans of requests. Imported only when traces are on."""

from collections.abc import Mapping

from litestar.types import HTTPScope
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from api.request.metrics import NO_ROUTE
from runtime.tracing import Tracing

SERVER_ERROR = 500


class RequestSpans:
    """Starts and ends the spans of requests, in the trace that the caller's `traceparent` names."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def begin(self, scope: HTTPScope, headers: Mapping[bytes, bytes]) -> Span:
        """Start and return the span of a request."""
        route = scope.get("path_template") or NO_ROUTE
        parent, state = (headers.get(name, b"").decode("latin-1") for name in (b"traceparent", b"tracestate"))
        return self._tracing.tracer.start_span(
            f"{scope['method']} {route}",
            context=self._tracing.context(parent, state),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": scope["method"], "http.route": route},
        )

    def end(self, span: Span, status: int, request_id: str, session_id: str | None) -> None:
        """End the span of an answered request."""
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("login_relay.request_id", request_id)
        if session_id is not None:
            span.set_attribute("login_relay.session_id", session_id)
        if status >= SERVER_ERROR:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def close(self) -> None:
        """Send the remaining spans."""
        self._tracing.close()
