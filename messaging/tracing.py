"""Tracing with OpenTelemetry: one trace from whoever sends, through whoever handles, and on.

    bus.use(Tracing())          # a PRODUCER span for each message, carried in its W3C headers
    service.use(Tracing())      # a CONSUMER span for each delivery, a child of its sender's

Needs the extra `otel`, and for spans to go anywhere the OpenTelemetry SDK, set up as for any program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

try:
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as missing:
    raise ImportError("Tracing needs OpenTelemetry. Install it: pip install 'sagasmith[otel]'") from missing

from messaging import envelope as wire
from messaging.envelope import Destination, Envelope, HeaderValue
from messaging.middleware import DeliverNext, Middleware, Outcome, PublishNext, Settled
from messaging.printable import traceback_text, without_values
from messaging.transport import Delivery, Outgoing

INSTRUMENTATION: Final = "sagasmith"
_W3C: Final = TraceContextTextMapPropagator()
_OUR_HEADERS: Final = (wire.SAGA_ID, wire.SAGA_NAME, wire.SAGA_STEP, wire.ATTEMPT, wire.CAUSATION_ID)


class Tracing(Middleware):
    """A span for each message sent and each delivery handled, by the semantic conventions for messaging.

    A message is a child of the span in its `traceparent` header if it has one, else of the current span.
    A delivery's span is current while it is handled, and what the handler answers and publishes carries it.

    Args:
        provider: where spans go; by default the one that OpenTelemetry is set up with.
        system: `messaging.system` of the spans.
    """

    def __init__(self, provider: TracerProvider | None = None, *, system: str = "rabbitmq") -> None:
        self._tracer = trace.get_tracer(INSTRUMENTATION, tracer_provider=provider)
        self._system = system

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        """Send it within a span that ends when it is confirmed or written down."""
        envelope, name = outgoing.envelope, destination_name(outgoing.destination)
        with self._tracer.start_as_current_span(
            f"send {name}",
            context=context_of(envelope.headers),
            kind=SpanKind.PRODUCER,
            attributes=attributes(envelope, "send", name, self._system),
        ) as span:
            await call_next(replace(outgoing, envelope=carrying(envelope, span)))

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        """Handle it within a span that ends when it is settled."""
        envelope = delivery.envelope
        with self._tracer.start_as_current_span(
            f"process {delivery.queue}",
            context=context_of(envelope.headers),
            kind=SpanKind.CONSUMER,
            attributes=attributes(envelope, "process", delivery.queue, self._system),
        ) as span:
            settled = await call_next(replace(delivery, envelope=carrying(envelope, span)))
            span.set_attribute("sagasmith.outcome", settled.outcome.value)
            if settled.error is not None and settled.outcome is not Outcome.BUSY:
                failed(span, settled.error)
        return settled


def context_of(headers: Mapping[str, HeaderValue]) -> contexts.Context:
    """The trace that headers carry; the current one where they carry none."""
    carrier = {name: str(headers[name]) for name in (wire.TRACEPARENT, wire.TRACESTATE) if headers.get(name)}
    return _W3C.extract(carrier, contexts.get_current())


def trace_headers(span: Span) -> dict[str, str]:
    """The W3C headers by which others go on from this span; empty where tracing is not set up."""
    carrier: dict[str, str] = {}
    _W3C.inject(carrier, trace.set_span_in_context(span))
    return carrier


def carrying(envelope: Envelope, span: Span) -> Envelope:
    """The message with this span in its headers."""
    headers = trace_headers(span)
    if not headers:
        return envelope
    others = {name: value for name, value in envelope.headers.items() if name != wire.TRACESTATE}
    return replace(envelope, headers={**others, **headers})


def destination_name(destination: Destination) -> str:
    """As the conventions have it: the queue, or `exchange:routing-key`."""
    exchange, key = destination.exchange, destination.routing_key
    return f"{exchange}:{key}" if exchange else key


def attributes(envelope: Envelope, operation: str, destination: str, system: str) -> dict[str, str | int | float]:
    """What the semantic conventions say of a message, and our headers as `sagasmith.*`."""
    told: dict[str, str | int | float] = {
        "messaging.system": system,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
        "messaging.destination.name": destination,
        "messaging.message.id": envelope.message_id,
        "messaging.message.body.size": len(envelope.body),
        "sagasmith.message.type": envelope.type,
    }
    if envelope.correlation_id:
        told["messaging.message.conversation_id"] = envelope.correlation_id
    if envelope.headers.get(wire.COMPENSATES):
        told["sagasmith.direction"] = "compensation"
    for name in _OUR_HEADERS:
        value = envelope.headers.get(name)
        if value is not None:
            told[f"sagasmith.{name.replace('-', '.')}"] = value
    return told


def failed(span: Span, error: Exception) -> None:
    """Mark a span as failed by this error."""
    text = without_values(str(error))
    span.record_exception(error, {"exception.message": text, "exception.stacktrace": traceback_text(error)})
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR, text))
