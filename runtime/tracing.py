"""Traces (OpenTelemetry). Unless the environment names a collector, they are off and OpenTelemetry is not imported.

OpenTelemetry's own variables (`OTEL_…`) configure them, as in the operator's other services.
"""

from collections.abc import Mapping
from importlib import import_module
from threading import Thread
from typing import TYPE_CHECKING

from runtime.errors import SettingError

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

CLOSE_TIMEOUT = 2.0  # seconds
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""Either of them switches traces on."""


class Tracing:
    """Starts spans and reads the trace context of requests."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - only when traces are on
            TraceContextTextMapPropagator,
        )

        self._provider = provider
        self._propagator = TraceContextTextMapPropagator()
        self.tracer = provider.get_tracer("login-relay")

    def context(self, traceparent: str | None, tracestate: str | None = None) -> "Context":
        """Return the context in these headers (W3C Trace Context §3); an empty one if they are malformed."""
        from opentelemetry.context import Context  # noqa: PLC0415 - only when traces are on

        headers = {"traceparent": traceparent or "", "tracestate": tracestate or ""}
        return self._propagator.extract(headers, context=Context())

    def close(self) -> None:
        """Send the remaining spans. An unreachable collector delays the end of the process by two seconds at most."""
        closing = Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT)


def traceparent(span: "Span") -> str:
    """Return the `traceparent` header of a span (W3C Trace Context §3.2)."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def check_tracing(environ: Mapping[str, str]) -> bool:
    """Return whether traces are on.

    Raises:
        SettingError: they are on, and OpenTelemetry is not installed.

    """
    wanted = [name for name in ENDPOINTS if environ.get(name)]
    if not wanted:
        return False
    try:
        import_module("opentelemetry.sdk.trace")
        import_module("opentelemetry.exporter.otlp.proto.http")
    except ImportError:
        message = f"{wanted[0]}: traces need OpenTelemetry; install login-relay with its extra `otel`"
        raise SettingError(message) from None
    return True


def start_tracing(environ: Mapping[str, str], service: str) -> Tracing | None:
    """Return the tracing of this process; None if no collector is named.

    Raises:
        SettingError: OpenTelemetry is not installed.

    """
    if not check_tracing(environ):
        return None
    from opentelemetry.exporter.otlp.proto.http import trace_exporter  # noqa: PLC0415 - only when traces are on
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - the same
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - the same

    named = Resource.create({"service.name": environ.get("OTEL_SERVICE_NAME") or service})
    provider = TracerProvider(resource=named, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(trace_exporter.OTLPSpanExporter()))
    return Tracing(provider)
