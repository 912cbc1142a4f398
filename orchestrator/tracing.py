"""One saga is one trace: through the orchestrator, the broker, the participants and back, compensation included.

    app.use(SagaTracing())

A saga belongs to the trace in which it was started; started outside of any, to one that begins when it is
taken on. Needs the extra `otel`, and the OpenTelemetry SDK set up as for any program.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, TracerProvider

from messaging.current_trace import joined, parted
from messaging.errors import PublishError
from messaging.tracing import (
    INSTRUMENTATION,
    attributes,
    carrying,
    context_of,
    destination_name,
    failed,
    trace_headers,
)
from messaging.transport import Delivery, Outgoing
from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.watching import Change, Watcher


class SagaTracing(Watcher):
    """Spans of a saga: each command sent, each reply and event handled, and the whole when it has ended.

    Args:
        provider: where spans go; by default the one that OpenTelemetry is set up with.
        system: `messaging.system` of the spans.
    """

    def __init__(self, provider: TracerProvider | None = None, *, system: str = "rabbitmq") -> None:
        self._tracer = trace.get_tracer(INSTRUMENTATION, tracer_provider=provider)
        self._system = system
        self._sending: dict[str, Span] = {}

    def begun(self, saga: SagaInstance) -> str:
        """Begin a trace with a span of its own."""
        told = {"sagasmith.saga.id": str(saga.id), "sagasmith.saga.name": saga.pin.name}
        with self._tracer.start_as_current_span(f"start {saga.pin.name}", attributes=told) as span:
            return joined(trace_headers(span))

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """A CONSUMER span for each, until the batch is committed and acknowledged."""
        spans = [self._taken(delivery) for delivery in deliveries]

        def done() -> None:
            for span in spans:
                span.end()

        return done

    def _taken(self, delivery: Delivery) -> Span:
        envelope = delivery.envelope
        return self._tracer.start_span(
            f"process {delivery.queue}",
            context=context_of(envelope.headers),
            kind=SpanKind.CONSUMER,
            attributes=attributes(envelope, "process", delivery.queue, self._system),
        )

    def sending(self, messages: list[Outgoing]) -> list[Outgoing]:
        """A PRODUCER span for each, in the saga's trace; it goes along as the message's parent."""
        return [self._begun_sending(outgoing) for outgoing in messages]

    def _begun_sending(self, outgoing: Outgoing) -> Outgoing:
        envelope, name = outgoing.envelope, destination_name(outgoing.destination)
        span = self._sending[envelope.message_id] = self._tracer.start_span(
            f"send {name}",
            context=context_of(envelope.headers),
            kind=SpanKind.PRODUCER,
            attributes=attributes(envelope, "send", name, self._system),
        )
        return replace(outgoing, envelope=carrying(envelope, span))

    def sent(self, messages: Sequence[Outgoing], outcomes: Sequence[PublishError | None]) -> None:
        """End their spans."""
        for outgoing, error in zip(messages, outcomes, strict=True):
            span = self._sending.pop(outgoing.envelope.message_id, None)
            if span is None:
                continue
            if error is not None:
                failed(span, error)
            span.end()

    def committed(self, changes: Sequence[Change]) -> None:
        """A span over the whole life of each saga that has ended."""
        for change in changes:
            if change.after.status.terminal and not change.before.status.terminal:
                self._whole(change.after)

    def _whole(self, saga: SagaInstance) -> None:
        told = {
            "sagasmith.saga.id": str(saga.id),
            "sagasmith.saga.name": saga.pin.name,
            "sagasmith.saga.status": saga.status.value,
        }
        if saga.first_cause is not None:
            told |= {"sagasmith.failed.step": saga.first_cause.step, "error.type": saga.first_cause.code}
        span = self._tracer.start_span(
            f"saga {saga.pin.name}",
            context=context_of(parted(saga.trace)),
            attributes=told,
            start_time=_nanoseconds(saga.started_at),
        )
        if saga.status is SagaStatus.ABANDONED:
            span.set_status(trace.StatusCode.ERROR, "abandoned")
        span.end(_nanoseconds(saga.ended_at or saga.updated_at))


def _nanoseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000) * 1000
