"""Whatever becomes of the broker: what it accepted is handled, and publishers and consumers go on by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeAlias

import pytest

from tests.conformance.transport_backends import eventually
from tests.integration.rabbitmq.ledgers import QUEUE, Ledgers, opened
from tests.integration.rabbitmq.proxy import Proxy
from tests.support.broker import Broker
from tests.support.services import PrivateRabbit

Fault: TypeAlias = Callable[[range], Awaitable[None]]
"""Does its worst while these numbers are published, and puts the broker right again."""

FEW = pytest.param(300, 1, id="a few hundred")
MANY = pytest.param(10_000, 20, marks=[pytest.mark.torture, pytest.mark.timeout(900)], id="ten thousand")
few_or_many = pytest.mark.parametrize(("count", "rounds"), [FEW, MANY])
both_paths = pytest.mark.parametrize("fast", [True, False], ids=["fast", "plain"])
A_WHILE = timedelta(seconds=30)


async def lives_through(ledgers: Ledgers, fault: Fault, count: int, rounds: int) -> None:
    """Publish before, during and after the fault, round by round; in the end the ledgers must agree."""
    before, share = len(ledgers.accepted), count // rounds
    for first in range(before, before + count, share):
        third, end = first + share // 3, first + share
        await ledgers.publish(range(first, third))
        await asyncio.wait_for(fault(range(third, third + share // 3)), 90)
        await ledgers.publish(range(third + share // 3, end))
    await agree(ledgers, before + count)


async def agree(ledgers: Ledgers, count: int) -> None:
    """Everything was accepted in the end, and everything is handled."""
    await ledgers.compared()
    print(f"of {count}: {ledgers}")
    assert ledgers.accepted == ledgers.handled.keys() == set(range(count))


@both_paths
@few_or_many
async def test_connections_that_are_reset_lose_nothing(
    amqp_url: str, prefix: str, broker: Broker, fast: bool, count: int, rounds: int
) -> None:
    broker.service_queue(f"{prefix}{QUEUE}")
    async with Proxy(amqp_url) as proxy, opened(proxy.url, prefix, fast=fast) as ledgers:

        async def reset(numbers: range) -> None:
            publishing = asyncio.create_task(ledgers.publish(numbers))
            for _ in range(3):
                await asyncio.sleep(0.01)
                proxy.cut()
            await publishing

        await lives_through(ledgers, reset, count, rounds)
    assert ledgers.outcomes.keys() == {"accepted", "NotConfirmed"}


@few_or_many
async def test_half_open_connections_lose_nothing(
    amqp_url: str, prefix: str, broker: Broker, count: int, rounds: int
) -> None:
    broker.service_queue(f"{prefix}{QUEUE}")
    async with Proxy(amqp_url) as proxy, opened(proxy.url, prefix) as ledgers:

        async def swallow(numbers: range) -> None:
            proxy.swallow()
            await ledgers.publish(numbers)

        await lives_through(ledgers, swallow, count, max(1, rounds // 4))
    assert ledgers.outcomes.keys() == {"accepted", "NotConfirmed"}


@few_or_many
async def test_a_queue_deleted_under_its_consumer_takes_nothing_with_it_that_is_accepted_later(
    amqp_url: str, prefix: str, broker: Broker, count: int, rounds: int
) -> None:
    """What a queue holds when somebody deletes it goes by their will; so it is empty here when it is deleted."""
    queue = broker.service_queue(f"{prefix}{QUEUE}")
    async with opened(amqp_url, prefix) as ledgers:

        async def delete(numbers: range) -> None:
            await ledgers.compared()
            await broker.delete_queue(queue)
            await ledgers.publish(numbers)

        await lives_through(ledgers, delete, count, rounds)
    # Not confirmed: the queue is there again, and has elected no leader within the publisher's patience.
    assert ledgers.outcomes.keys() <= {"accepted", "Unroutable", "NotConfirmed"}


@pytest.mark.torture  # tests/faults kill a broker each time
@both_paths
@few_or_many
async def test_a_broker_that_is_killed_and_then_short_of_memory_loses_nothing(
    private_rabbit: PrivateRabbit, fast: bool, count: int, rounds: int
) -> None:
    async with opened(private_rabbit.url, "", fast=fast) as ledgers:

        async def kill(numbers: range) -> None:
            await asyncio.sleep(2)  # the broker writes its registry of quorum queues half a second late
            publishing = asyncio.create_task(ledgers.publish(numbers[: len(numbers) // 2]))
            await asyncio.to_thread(private_rabbit.kill)
            meanwhile = asyncio.create_task(ledgers.publish(numbers[len(numbers) // 2 :]))
            await eventually(lambda: ledgers.outcomes["NotConfirmed"] > 0, "publishers are told", within=A_WHILE)
            await asyncio.to_thread(private_rabbit.restart)
            await asyncio.gather(publishing, meanwhile)

        async def block(numbers: range) -> None:
            told = ledgers.outcomes["NotConfirmed"]
            await asyncio.to_thread(private_rabbit.ctl, "set_vm_memory_high_watermark", "0")
            publishing = asyncio.create_task(ledgers.publish(numbers))
            await eventually(lambda: ledgers.outcomes["NotConfirmed"] > told, "publishers are told", within=A_WHILE)
            await ledgers.compared()  # consumers go on
            await asyncio.to_thread(private_rabbit.ctl, "set_vm_memory_high_watermark", "0.4")
            await publishing

        await lives_through(ledgers, kill, count // 2, max(1, rounds // 4))
        await lives_through(ledgers, block, count // 2, max(1, rounds // 4))
    assert ledgers.outcomes.keys() == {"accepted", "NotConfirmed"}
