"""Answers are read before timeouts: when deadlines count, and when they wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from messaging.envelope import Envelope
from messaging.errors import TransportError
from messaging.transport import Delivery, Part
from orchestrator.intake import Intake


class FakeSubscription:
    """A queue with so many messages ready, on a connection that can be renewed."""

    def __init__(self, ready: int) -> None:
        self.queue, self.epoch, self.ready, self.broker_away = "replies", 1, ready, False
        self.acked: list[Delivery] = []

    async def take(self, limit: int) -> list[Delivery]:
        while not self.ready:
            await asyncio.Event().wait()
        return self.take_nowait(limit)

    def take_nowait(self, limit: int) -> list[Delivery]:
        taken = min(limit, self.ready)
        self.ready -= taken
        return [Delivery(Envelope(str(n), b"{}"), self.queue, tag=n, epoch=self.epoch) for n in range(taken)]

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked.extend(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None: ...

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None: ...

    async def backlog(self) -> int:
        if self.broker_away:
            raise TransportError("the broker is away")
        return self.ready

    async def close(self) -> None: ...


def intake_of(subscription: FakeSubscription, limit: timedelta = timedelta(minutes=5), prefetch: int = 0) -> Intake:
    return Intake(subscription, asyncio.Event(), prefetch=prefetch, catch_up_limit=limit)


async def test_a_queue_that_stays_empty_is_caught_up_with() -> None:
    intake = intake_of(FakeSubscription(ready=0), prefetch=100)

    assert [await intake.caught_up() for _ in range(3)] == [False, True, True]


async def test_what_was_on_its_way_when_the_queue_looked_empty_is_waited_for() -> None:
    subscription = FakeSubscription(ready=0)
    intake = intake_of(subscription, prefetch=100)
    assert not await intake.caught_up()

    subscription.ready = 50  # arrives only now, though the broker had pushed it before
    assert not await intake.caught_up()
    await intake.handled(subscription.take_nowait(50))
    assert [await intake.caught_up() for _ in range(2)] == [False, True]


async def test_deadlines_wait_until_what_was_ready_at_the_start_is_handled() -> None:
    subscription = FakeSubscription(ready=3)
    intake = intake_of(subscription)
    assert not await intake.caught_up()

    subscription.ready += 100  # what comes later does not count
    await intake.handled(subscription.take_nowait(2))
    assert not await intake.caught_up()
    await intake.handled(subscription.take_nowait(1))
    assert await intake.caught_up()


async def test_a_batch_counts_as_the_one_message_it_was_counted_as() -> None:
    subscription = FakeSubscription(ready=2)
    intake = intake_of(subscription)
    assert not await intake.caught_up()

    first, second = subscription.take_nowait(2)
    subscription.ready = 100  # what comes later does not count
    for batch in (first, second):
        for number in (1, 2, 3):
            assert not await intake.caught_up()
            await intake.handled([replace(batch, part=Part(number, 3))])
    assert await intake.caught_up()


async def test_a_reconnect_makes_deadlines_wait_again() -> None:
    subscription = FakeSubscription(ready=0)
    intake = intake_of(subscription)
    assert await intake.caught_up()

    subscription.epoch, subscription.ready = 2, 5
    assert not await intake.caught_up()


async def test_an_outage_of_the_database_makes_deadlines_wait_again() -> None:
    subscription = FakeSubscription(ready=0)
    intake = intake_of(subscription)
    assert await intake.caught_up()

    subscription.ready = 5
    intake.fell_behind()
    assert not await intake.caught_up()


async def test_a_broker_that_cannot_be_asked_is_not_caught_up_with() -> None:
    subscription = FakeSubscription(ready=0)
    subscription.broker_away = True

    assert not await intake_of(subscription).caught_up()


async def test_after_the_limit_deadlines_count_whatever_is_in_the_queue() -> None:
    subscription = FakeSubscription(ready=5)

    assert await intake_of(subscription, limit=timedelta(0)).caught_up()


async def test_the_pump_stops_taking_when_nothing_is_handled() -> None:
    subscription = FakeSubscription(ready=1000)
    intake = intake_of(subscription)
    pump = asyncio.create_task(intake.pump(batch=10))
    for _ in range(20):
        await asyncio.sleep(0)

    assert 1000 - subscription.ready <= 20
    assert len(intake.take(1000)) == 1000 - subscription.ready
    pump.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pump


async def test_what_is_taken_while_the_pump_waits_is_not_lost() -> None:
    subscription = FakeSubscription(ready=25)
    intake = intake_of(subscription)
    pump = asyncio.create_task(intake.pump(batch=10))
    taken: list[Delivery] = []
    while len(taken) < 25:
        taken += intake.take(10)
        await asyncio.sleep(0)
    pump.cancel()

    assert len(taken) == 25
