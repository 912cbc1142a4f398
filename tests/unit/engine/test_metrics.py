"""What an orchestrator counts of its sagas."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from prometheus_client import CollectorRegistry

from messaging.envelope import Envelope, to_queue
from messaging.errors import NotConfirmed, Unroutable
from messaging.memory import MemoryTransport
from messaging.transport import Outgoing
from orchestrator.backlog import Backlog
from orchestrator.metrics import SagaMetrics
from orchestrator.watching import Watching
from tests.unit.engine.bench import Workbench, broken_hooks
from tests.unit.engine.shop import shop
from tests.unit.messaging.test_metrics import counted

SOON = timedelta(seconds=10)


async def test_sagas_and_their_steps_are_counted_by_how_they_end(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with shop(tmp_path, watchers=[SagaMetrics(registry)]) as at:
        for order in ("one", "two", "refused"):
            await at.ended(order)

    assert counted(registry, "saga_begun_total") == {("create-order", "1"): 3}
    assert counted(registry, "saga_ended_total") == {
        ("create-order", "1", "completed"): 2,
        ("create-order", "1", "compensated"): 1,
    }
    assert counted(registry, "saga_seconds_count") == {
        ("create-order", "completed"): 2,
        ("create-order", "compensated"): 1,
    }
    assert counted(registry, "saga_step_seconds_count") == {
        ("create-order", "ReservingCredit", "action", "succeeded"): 3,
        ("create-order", "ReservingStock", "action", "succeeded"): 3,
        ("create-order", "AwaitingPayment", "action", "succeeded"): 3,
        ("create-order", "ShippingOrder", "action", "succeeded"): 2,
        ("create-order", "ShippingOrder", "action", "refused"): 1,
        ("create-order", "ReservingCredit", "compensation", "succeeded"): 1,
        ("create-order", "ReservingStock", "compensation", "succeeded"): 1,
    }
    assert counted(registry, "saga_commands_total") == {
        ("queue 'customers'", "sent"): 4,
        ("queue 'warehouse'", "sent"): 7,
    }
    assert counted(registry, "saga_deliveries_total") == {(): 14}


async def test_retries_blocks_unmatched_messages_and_failed_sends_are_counted() -> None:
    registry = CollectorRegistry()
    bench = await Workbench(watching=Watching([SagaMetrics(registry)])).open()
    bench.transport.refuse = refused
    for number in range(1, 5):
        await bench.start(number)
    await bench.wake()
    await bench.publish()
    broken_hooks.update({3, 4})
    await bench.engine.replies([bench.answer(bench.sent[-1])])
    broken_hooks.clear()
    nothing_of_ours = replace(bench.sent[-1].envelope, correlation_id=str(uuid4()))
    await bench.engine.replies([bench.answer(replace(bench.sent[-1], envelope=nothing_of_ours))])
    bench.clock.advance(timedelta(seconds=11))
    await bench.wake()

    assert counted(registry, "saga_step_retries_total") == {("book-trip", "BookingFlight", "action"): 1}
    assert counted(registry, "saga_blocked_total") == {("book-trip", "1", "code_error"): 1}
    assert counted(registry, "saga_messages_unmatched_total") == {(): 1}
    assert counted(registry, "saga_commands_total") == {
        ("queue 'flights'", "sent"): 2,
        ("queue 'flights'", "unroutable"): 1,
        ("queue 'flights'", "not-confirmed"): 1,
    }


async def test_what_nobody_can_read_is_counted_as_dead_lettered(tmp_path: Path) -> None:
    registry, told, transport = CollectorRegistry(), asyncio.Event(), MemoryTransport()

    class Told(SagaMetrics):
        def dead_lettered(self, messages: int) -> None:
            super().dead_lettered(messages)
            told.set()

    async with shop(tmp_path, watchers=[Told(registry)], transport=transport):
        await transport.publish(
            [Outgoing(Envelope("m1", b"\xff"), to_queue("orchestrator.main.replies"))], timeout=SOON
        )
        await asyncio.wait_for(told.wait(), 30)

    assert counted(registry, "saga_messages_dead_lettered_total") == {(): 1}


async def test_what_waits_in_the_database_is_shown_from_the_start(tmp_path: Path) -> None:
    registry, told = CollectorRegistry(), asyncio.Event()

    class Told(SagaMetrics):
        def waiting(self, backlog: Backlog) -> None:
            super().waiting(backlog)
            told.set()

    async with shop(tmp_path, watchers=[Told(registry)]):
        await asyncio.wait_for(told.wait(), 30)

    assert counted(registry, "saga_command_overdue_seconds") == {(): 0}
    assert counted(registry, "saga_outbox_oldest_seconds") == {(): 0}
    assert counted(registry, "saga_wake_overdue_seconds") == {(): 0}
    assert counted(registry, "saga_engines") == {(): 1}


def refused(outgoing: Outgoing) -> Unroutable | NotConfirmed | None:
    """The first trip's commands have no queue, the broker is away for the second's."""
    message_id = outgoing.envelope.message_id
    if b'"number":1' in outgoing.envelope.body:
        return Unroutable(message_id, "flights")
    return NotConfirmed(message_id, "flights", "away") if b'"number":2' in outgoing.envelope.body else None
