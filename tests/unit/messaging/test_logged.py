"""Which message a line of the log is about."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from messaging import envelope as wire
from messaging.context import Context
from messaging.logged import Logged, MessageIds, about
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Reply
from messaging.service import Service
from messaging.transport import Binding, QueueSpec
from orchestrator.cli.logs import JsonFormatter, TextFormatter
from tests.support.spans import Spans
from tests.unit.messaging.support import running

shop = logging.getLogger("tests.shop")


class Charge(Command[Reply]):
    pass


class Paid(Event):
    pass


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What a handler with this formatter writes."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.addFilter(MessageIds())
    handler.setFormatter(getattr(request, "param", TextFormatter)())
    for logger in (shop, logging.getLogger("messaging")):
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    yield written
    for logger in (shop, logging.getLogger("messaging")):
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


@pytest.fixture(params=["async", "in a thread"])
def payments(request: pytest.FixtureRequest) -> Service:
    service = Service("payments")

    async def charge(command: Charge, context: Context[None]) -> Reply:
        shop.info("charging")
        context.publish(Paid())
        return Reply()

    def charge_plainly(command: Charge) -> Reply:
        shop.info("charging")
        return Reply()

    service.add(Charge, charge if request.param == "async" else charge_plainly)
    return service


@pytest.mark.parametrize("lines", [JsonFormatter], indirect=True)
def test_a_line_keeps_the_ids_it_brings_and_has_those_it_stands_in(lines: io.StringIO) -> None:
    with about(saga_id="saga-1", saga_step="Charging"):
        shop.info("here")
        shop.info("of another", extra={"saga_id": "saga-2"})
    with Spans().tracer.start_as_current_span("POST /orders") as span:
        shop.info("in a web request")

    here, other, asked = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert (here["saga_id"], here["saga_step"]) == ("saga-1", "Charging")
    assert (other["saga_id"], other["saga_step"]) == ("saga-2", "Charging")
    assert asked["trace_id"] == f"{span.get_span_context().trace_id:032x}" and "saga_id" not in asked


@pytest.mark.parametrize("lines", [JsonFormatter], indirect=True)
async def test_what_a_handler_logs_carries_the_ids_of_its_message(payments: Service, lines: io.StringIO) -> None:
    async with running(payments) as asking:
        sent = await asking.send(
            Charge(),
            headers={
                wire.SAGA_ID: "saga-1",
                wire.SAGA_STEP: "Charging",
                wire.CAUSATION_ID: "m0",
                wire.ATTEMPT: 2,
                wire.TRACEPARENT: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            },
        )
        await asking.reply()
        shop.info("between messages")

    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    (charging,) = [line for line in told if line["message"] == "charging"]
    assert charging["message_id"] == charging["correlation_id"] == sent.message_id
    assert (charging["saga_id"], charging["saga_step"], charging["causation_id"]) == ("saga-1", "Charging", "m0")
    assert (charging["attempt"], charging["trace_id"]) == ("2", "0af7651916cd43dd8448eb211c80319c")
    assert "message_id" not in told[-1]


async def test_text_lines_name_the_ids_after_the_message(payments: Service, lines: io.StringIO) -> None:
    payments.use(Logged())
    async with running(payments) as asking:
        sent = await asking.send(Charge())
        await asking.reply()

    charging, logged = lines.getvalue().splitlines()
    assert charging.endswith(f"tests.shop: charging [message_id={sent.message_id} correlation_id={sent.message_id}]")
    assert "charge in payments: success in " in logged


async def test_what_a_handler_publishes_names_its_cause() -> None:
    service, transport = Service("payments"), MemoryTransport()

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Reply:
        context.publish(Paid())
        return Reply()

    await transport.declare([QueueSpec("mailer", (Binding("paid"),))])
    mailer = await transport.subscribe("mailer", prefetch_messages=1)
    async with running(service, transport) as asking:
        sent = await asking.send(Charge())
        (told,) = await mailer.take(1)

    assert told.envelope.headers[wire.CAUSATION_ID] == sent.message_id
