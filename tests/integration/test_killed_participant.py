"""A participant killed at any line charges once, answers, and tells everybody, after it is started again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import envelope as wire
from messaging.coalescing import Coalescing
from messaging.compose import compose_command
from messaging.envelope import Envelope, to_queue
from messaging.rabbitmq import RabbitTransport
from messaging.splitting import subscribed
from messaging.sql import create_tables
from messaging.transport import Binding, Outgoing, QueueSpec, Subscription, dead_letter_queue
from tests.integration.killed_participant import Charge, charges, own
from tests.support.broker import Broker

WAIT = 30
USUALLY = ("participant.claimed", "participant.committed", "relay.published")
SELDOM = (
    *("participant.received", "participant.handled", "participant.replied", "participant.acked"),
    *("relay.claimed", "relay.marked"),
)
"""The whole shop is killed there each time, in tests/faults."""
FAILPOINTS = [*USUALLY, *(pytest.param(name, marks=pytest.mark.torture) for name in SELDOM)]


@asynccontextmanager
async def participant(failpoint: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the process until the block ends; ready when the block begins."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.integration.killed_participant",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "ORCHESTRATOR_FAILPOINT": failpoint},
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), WAIT) == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), WAIT)


async def one(subscription: Subscription) -> Envelope:
    (delivery,) = await asyncio.wait_for(subscription.take(1), WAIT)
    await subscription.ack([delivery])
    return delivery.envelope


@pytest.fixture
async def surroundings(
    broker: Broker, prefix: str, postgres_database: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RabbitTransport]:
    monkeypatch.setenv("DATABASE_URL", postgres_database)
    monkeypatch.setenv("MESSAGING_BROKER_URL", broker.url)
    monkeypatch.setenv("MESSAGING_PREFIX", prefix)
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "replies")
    for name in ("payments", "replies", "mailer"):
        broker.queue(f"{prefix}{name}")
        broker.queue(f"{prefix}{dead_letter_queue(name)}")
    broker.exchange(f"{prefix}events")
    engine = create_async_engine(postgres_database)
    await create_tables(engine)
    async with engine.begin() as connection:
        await connection.run_sync(own.create_all)
    await engine.dispose()
    transport = RabbitTransport(broker.url, prefix=prefix)
    await transport.open()
    await transport.declare([QueueSpec("replies"), QueueSpec("mailer", (Binding("paid"),))])
    yield transport
    await transport.close()


@pytest.mark.parametrize("failpoint", FAILPOINTS)
async def test_killed_at_any_line_it_charges_once_and_answers_and_tells(
    surroundings: RabbitTransport, postgres_database: str, failpoint: str
) -> None:
    transport = surroundings
    replies = await subscribed(transport, "replies", prefetch_messages=1)
    mailer = await transport.subscribe("mailer", prefetch_messages=1)
    order = compose_command(Charge(number="4711"), reply_to=transport.full_name("replies"))

    async with participant(failpoint) as process:
        sent = await transport.publish([Outgoing(order, to_queue("payments"))], timeout=timedelta(seconds=WAIT))
        assert sent == [None]
        assert await asyncio.wait_for(process.wait(), WAIT) == -signal.SIGKILL
    async with participant():
        reply, event = await one(replies), await one(mailer)

    assert (reply.correlation_id, reply.text_header(wire.OUTCOME)) == (order.message_id, "success")
    assert (event.type, event.body) == ("paid", b'{"number":"4711"}')
    engine = create_async_engine(postgres_database)
    async with engine.connect() as connection:
        assert list(await connection.scalars(select(charges.c.number))) == ["4711"]
    await engine.dispose()


@pytest.mark.parametrize(
    "failpoint", ["participant.claimed:3", pytest.param("participant.replied", marks=pytest.mark.torture)]
)
async def test_killed_in_the_middle_of_a_batch_it_charges_each_once_and_answers_all(
    surroundings: RabbitTransport, postgres_database: str, failpoint: str
) -> None:
    transport = surroundings
    replies = await subscribed(transport, "replies", prefetch_messages=100)
    orders = [compose_command(Charge(number=str(n)), reply_to=transport.full_name("replies")) for n in range(8)]
    joined = [Outgoing(order, to_queue("payments"), may_join=True) for order in orders]

    async with participant(failpoint) as process:
        joining = Coalescing(transport, {"payments"})
        assert await joining.publish(joined, timeout=timedelta(seconds=WAIT)) == [None] * 8
        assert await asyncio.wait_for(process.wait(), WAIT) == -signal.SIGKILL
    answered: set[str] = set()
    async with participant():
        while len(answered) < len(orders):
            answered.add((await one(replies)).correlation_id)

    assert answered == {order.message_id for order in orders}
    engine = create_async_engine(postgres_database)
    async with engine.connect() as connection:
        assert sorted(await connection.scalars(select(charges.c.number))) == [str(n) for n in range(8)]
    await engine.dispose()


async def test_it_ends_on_sigterm_with_everything_settled(surroundings: RabbitTransport) -> None:
    transport = surroundings
    replies = await subscribed(transport, "replies", prefetch_messages=100)
    async with participant() as process:
        orders = [compose_command(Charge(number=str(n)), reply_to=transport.full_name("replies")) for n in range(200)]
        await transport.publish(
            [Outgoing(order, to_queue("payments")) for order in orders], timeout=timedelta(seconds=WAIT)
        )
        answered = {(await one(replies)).correlation_id}
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), WAIT) == 0
    async with participant():
        while len(answered) < len(orders):
            answered.add((await one(replies)).correlation_id)

    assert answered == {order.message_id for order in orders}
