"""The trace this code is part of, asked for without loading OpenTelemetry where nobody else has."""

from __future__ import annotations

import sys

from messaging import envelope as wire
from messaging.envelope import HeaderValue


def current_trace() -> str:
    """The current span as `traceparent`, and after a space `tracestate` if there is one; empty if there is no span."""
    if "opentelemetry.trace" not in sys.modules:
        return ""
    from opentelemetry import trace

    from messaging.tracing import trace_headers

    return joined(trace_headers(trace.get_current_span()))


def joined(headers: dict[str, str]) -> str:
    """Both W3C headers as one text, which is kept with what happens later."""
    return " ".join(filter(None, (headers.get(wire.TRACEPARENT), headers.get(wire.TRACESTATE))))


def parted(kept: str) -> dict[str, HeaderValue]:
    """The headers again; none if nothing was kept."""
    traceparent, _, tracestate = kept.partition(" ")
    headers: dict[str, HeaderValue] = {wire.TRACEPARENT: traceparent} if traceparent else {}
    if tracestate:
        headers[wire.TRACESTATE] = tracestate
    return headers
