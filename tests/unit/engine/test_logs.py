"""What an engine logs of a saga says of which one, in fields."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from messaging.errors import Unroutable
from messaging.logged import IDS, MessageIds
from orchestrator.instance import StepKey
from orchestrator.local_runner import LocalRunner
from orchestrator.start import new_instance
from tests.unit.engine.bench import Booked, BookingFlight, BookTrip, Trip, Workbench, broken_hooks

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _named(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    names = MessageIds()
    caplog.handler.addFilter(names)
    yield
    caplog.handler.removeFilter(names)
    broken_hooks.clear()


def ids(record: logging.LogRecord) -> dict[str, str]:
    return {name: value for name in IDS if (value := record.__dict__[name])}


async def test_a_hook_that_raises_is_logged_with_its_saga_and_step(caplog: pytest.LogCaptureFixture) -> None:
    bench = await Workbench().open()
    saga = await bench.start(1)
    await bench.wake()
    await bench.publish()
    broken_hooks.add(1)
    await bench.engine.replies([bench.answer(bench.sent[-1])])

    (blocked,) = [record for record in caplog.records if "is blocked until its code is mended" in record.message]
    assert ids(blocked) == {"saga_id": str(saga), "saga_step": "BookingFlight"}


async def test_what_a_hook_logs_names_its_saga_and_its_trace(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_reply(step: BookingFlight, state: Trip, reply: Booked) -> None:
        logging.getLogger("shop").warning("booked")

    monkeypatch.setattr(BookingFlight, "on_reply", on_reply)
    bench = await Workbench().open()
    instance = replace(new_instance(BookTrip, Trip(number=1), "1", "", bench.clock.now()), trace=PARENT)
    async with bench.store.transaction() as tx:
        saga, _ = await tx.start(instance)
    await bench.wake()
    await bench.publish()
    await bench.engine.replies([bench.answer(bench.sent[-1])])

    (booked,) = [record for record in caplog.records if record.message == "booked"]
    assert ids(booked) == {"saga_id": str(saga), "trace_id": "0af7651916cd43dd8448eb211c80319c"}


async def test_what_a_local_step_logs_names_its_saga_and_step(caplog: pytest.LogCaptureFixture) -> None:
    logged = asyncio.Event()

    async def run(saga_id: UUID, key: StepKey) -> None:
        logging.getLogger("shop").warning("booking")
        logged.set()

    saga = uuid4()
    runner = LocalRunner(run)
    runner.take([(saga, StepKey("BookingSeat"))])
    await asyncio.wait_for(logged.wait(), 30)
    await runner.stop(timedelta(seconds=30))

    (booking,) = [record for record in caplog.records if record.message == "booking"]
    assert ids(booking) == {"saga_id": str(saga), "saga_step": "BookingSeat"}


async def test_a_command_that_cannot_be_sent_is_logged_with_its_message_and_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bench = await Workbench().open()
    bench.transport.refuse = lambda outgoing: Unroutable(outgoing.envelope.message_id, "flights")
    saga = await bench.start(1)
    await bench.wake()
    await bench.publish()

    (waits,) = [record for record in caplog.records if "Its saga waits" in record.message]
    told = ids(waits)
    assert (told["saga_id"], told["saga_step"], told["attempt"]) == (str(saga), "BookingFlight", "1")
    assert told["message_id"] in waits.message
