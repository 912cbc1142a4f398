"""Spans as OpenTelemetry sees them, and the headers that join them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from messaging import envelope as wire
from messaging.blocking import BlockingBus
from messaging.bus import Bus
from messaging.context import Context
from messaging.current_trace import joined, parted
from messaging.errors import Unroutable
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.retry import Retry
from messaging.service import Service
from messaging.tracing import Tracing
from tests.support.spans import Spans
from tests.unit.messaging.support import running

SOON = Retry(max_attempts=2, backoff=timedelta(0))
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class Charge(Command[Reply]):
    cents: int = 1


class Paid(Event):
    pass


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.provider.shutdown()


def payments(spans: Spans, *, plain: bool = False) -> Service:
    service = Service("payments", retry=SOON)

    async def charge(command: Charge, context: Context[None]) -> Reply | Failure:
        with spans.tracer.start_as_current_span("the handler's own"):
            await context.publish(Paid())
        if command.cents == 66:
            raise ValueError("evil")
        return Failure(reason="unlucky") if command.cents == 13 else Reply()

    def charge_plainly(command: Charge, context: Context[None]) -> Reply:
        with spans.tracer.start_as_current_span("the handler's own"):
            context.publish(Paid())
        return Reply()

    service.add(Charge, charge_plainly if plain else charge)
    service.use(Tracing(spans.provider, system="memory"))
    return service


@pytest.mark.parametrize("plain", [False, True])
async def test_a_request_its_handling_and_what_that_publishes_are_one_trace(spans: Spans, plain: bool) -> None:
    transport = MemoryTransport()
    async with running(payments(spans, plain=plain), transport), Bus(transport) as bus:
        bus.use(Tracing(spans.provider))
        with spans.tracer.start_as_current_span("GET /checkout"):
            await bus.request(Charge(), to="payments")

    assert spans.tree() == [
        " > GET /checkout",
        "GET /checkout > send payments",
        "send payments > process payments",
        "process payments > the handler's own",
        "process payments > send events:paid",
    ]
    assert [span.kind for span in spans.all()][1:3] == [SpanKind.PRODUCER, SpanKind.CONSUMER]


def test_a_blocking_bus_goes_on_from_the_span_of_its_callers_thread(spans: Spans) -> None:
    bus = BlockingBus(MemoryTransport, services=[payments(spans)])
    bus.use(Tracing(spans.provider))
    with bus, spans.tracer.start_as_current_span("GET /checkout"):
        bus.request(Charge(), to="payments")

    assert "GET /checkout > send payments" in spans.tree()
    assert "send payments > process payments" in spans.tree()


async def test_a_reply_carries_the_span_of_the_handling_with_the_senders_trace(spans: Spans) -> None:
    async with running(payments(spans)) as asking:
        headers: dict[str, wire.HeaderValue] = {wire.TRACEPARENT: PARENT, wire.TRACESTATE: "vendor=1"}
        reply = await asking.ask(Charge(), headers=headers)

    handled = spans["process payments"]
    assert handled.parent is not None and f"{handled.parent.span_id:016x}" == SPAN
    assert reply.text_header(wire.TRACEPARENT) == f"00-{TRACE}-{handled.context.span_id:016x}-01"
    assert reply.text_header(wire.TRACESTATE) == "vendor=1"


async def test_a_delivery_is_told_by_the_semantic_conventions(spans: Spans) -> None:
    async with running(payments(spans)) as asking:
        sent = await asking.send(Charge(), headers={wire.SAGA_ID: "saga-1", wire.COMPENSATES: "key", wire.ATTEMPT: 2})
        await asking.reply()

    assert dict(spans["process payments"].attributes or {}) == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "payments",
        "messaging.message.id": sent.message_id,
        "messaging.message.conversation_id": sent.message_id,
        "messaging.message.body.size": len(sent.body),
        "sagasmith.message.type": "charge",
        "sagasmith.saga.id": "saga-1",
        "sagasmith.attempt": 2,
        "sagasmith.direction": "compensation",
        "sagasmith.outcome": "success",
    }


async def test_a_handler_that_raises_marks_its_span_and_a_refusal_does_not(spans: Spans) -> None:
    async with running(payments(spans)) as asking:
        await asking.ask(Charge(cents=66))
        await asking.ask(Charge(cents=13))

    raised, refused = (span for span in spans.all() if span.name == "process payments")
    assert (raised.status.status_code, (raised.attributes or {})["error.type"]) == (StatusCode.ERROR, "ValueError")
    assert [event.name for event in raised.events] == ["exception"]
    assert (refused.status.status_code, (refused.attributes or {})["sagasmith.outcome"]) == (
        StatusCode.UNSET,
        "failure",
    )


async def test_each_try_of_an_event_is_a_child_of_its_publisher(spans: Spans) -> None:
    service = Service("mailer", retry=SOON)

    @service.subscribes(Paid)
    async def paid(event: Paid) -> None:
        raise ValueError

    service.use(Tracing(spans.provider))
    transport = MemoryTransport()
    async with running(service, transport) as asking, Bus(transport) as bus:
        bus.use(Tracing(spans.provider))
        await bus.publish(Paid())
        dead = await asking.dead_letter()

    sent = spans["send events:paid"]
    assert spans.tree()[1:] == ["send events:paid > process mailer"] * 2
    assert f"{sent.context.span_id:016x}" in dead.text_header(wire.TRACEPARENT)


async def test_a_message_that_cannot_be_sent_marks_its_span(spans: Spans) -> None:
    async with Bus(MemoryTransport()) as bus:
        bus.use(Tracing(spans.provider))
        with pytest.raises(Unroutable):
            await bus.send(Charge(), to="nowhere")

    assert spans["send nowhere"].status.status_code is StatusCode.ERROR


async def test_without_the_sdk_headers_pass_through_unchanged() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Reply:
        return Reply()

    service.use(Tracing())
    async with running(service) as asking:
        reply = await asking.ask(Charge(), headers={wire.TRACEPARENT: PARENT})
        untraced = await asking.ask(Charge())

    assert reply.text_header(wire.TRACEPARENT) == PARENT
    assert wire.TRACEPARENT not in untraced.headers


@pytest.mark.parametrize(
    "headers", [{}, {wire.TRACEPARENT: PARENT}, {wire.TRACEPARENT: PARENT, wire.TRACESTATE: "a=1,b=2"}]
)
def test_a_kept_trace_is_the_same_headers_again(headers: dict[str, str]) -> None:
    assert parted(joined(headers)) == headers


def test_opentelemetry_is_loaded_only_when_it_is_asked_for() -> None:
    program = (
        "import sys; from messaging import Bus, Service, ServiceRunner; import orchestrator, orchestrator.client;"
        "from messaging.current_trace import current_trace; assert current_trace() == '';"
        "print('opentelemetry' in sys.modules, 'prometheus_client' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "False False"
