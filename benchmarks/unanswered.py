"""Sagas whose command nobody answers, as many as wanted: one is written by the engine, the others are its copies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final

import aio_pika
from aio_pika.abc import AbstractChannel
from sqlalchemy import Table, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from benchmarks.three_steps import Done, Order, ReserveStock, order
from orchestrator import Saga, Step
from orchestrator.batch import Batch
from orchestrator.registry import SagaRegistry
from orchestrator.signals import DeadlinePassed
from orchestrator.sql import SqlStore
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.tables import saga_instance, saga_step
from orchestrator.start import new_instance

QUEUE: Final = "bench-nobody"
_LEFT_BEHIND: Final = ("orchestrator.main.replies", "orchestrator.main.events")
_ID: Final = """(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint + n / 20), 12, '0')
    || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid"""


class AskingNobody(Step[Order, Done]):
    participant = QUEUE
    timeout = timedelta(days=1)
    nothing_to_undo = True

    def command(self, state: Order) -> ReserveStock:
        return ReserveStock(order=state.order, customer=state.customer)


class Unanswered(Saga[Order]):
    steps = (AskingNobody(),)


async def written(url: str, number: int, *, begun: bool) -> None:
    """Write so many into a database of PostgreSQL that has none.

    Args:
        url: of the database.
        number: how many.
        begun: whether they have a command that has not been sent; else they have just been started.
    """
    if not number:
        return
    await _written_one(url, begun=begun)
    engine = connect(url, ConnectionSettings(statement_timeout=timedelta(minutes=5)))
    async with engine.begin() as connection:
        await connection.execute(
            text(f"CREATE TEMPORARY TABLE copies AS SELECT {_ID} AS copy, n FROM generate_series(1, :more ::int) n"),
            {"more": number - 1},
        )
        await _copied(connection, saga_instance, {"id": "copy"})
        await _copied(connection, saga_step, {"saga_id": "copy", "command_id": "md5('command' || n)::uuid"})
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE"))
    await engine.dispose()


async def _written_one(url: str, *, begun: bool) -> None:
    store, registry = SqlStore(url), SagaRegistry([Unanswered])
    await store.open()
    saga = new_instance(Unanswered, order(12345), None, "", datetime.now(UTC))
    async with store.transaction() as tx:
        await tx.start(saga)
    if begun:
        async with store.transaction() as tx:
            batch = Batch(registry, await tx.lock_due(registry.pins, limit=1), grace=timedelta(0))
            batch.tell(saga.id, DeadlinePassed())
            await batch.save(tx)
    await store.close()


async def _copied(connection: AsyncConnection, table: Table, own: dict[str, str]) -> None:
    names = [column.name for column in table.columns]
    values = ", ".join(own.get(name, f"one.{name}") for name in names)
    copying = f"INSERT INTO {table.name} ({', '.join(names)}) SELECT {values} FROM {table.name} one, copies ORDER BY n"
    await connection.execute(text(copying))


async def unsent(engine: AsyncEngine) -> int:
    """How many commands, or sagas that have none yet, are not known to have left."""
    async with engine.connect() as connection:
        of_new = "SELECT count(*) FROM saga_instance WHERE seq = 0"
        of_begun = "SELECT count(*) FROM saga_step WHERE send_after IS NOT NULL"
        return int((await connection.execute(text(f"SELECT ({of_new}) + ({of_begun})"))).scalar_one())


class Mailbox:
    """The queue that the commands come to, and that nobody consumes from."""

    def __init__(self, channel: AbstractChannel, name: str) -> None:
        self._channel, self._name = channel, name

    async def depth(self) -> int:
        """How many commands have come."""
        queue = await self._channel.declare_queue(self._name, durable=True, passive=True)
        return queue.declaration_result.message_count or 0

    async def until(self, depth: int, *, every: float, give_up_after: float) -> float:
        """Wait until so many have come; returns the instant, as `time.perf_counter` tells it.

        Raises:
            SystemExit: they have not.
        """
        end = time.perf_counter() + give_up_after
        while (come := await self.depth()) < depth:
            if time.perf_counter() > end:
                raise SystemExit(f"after {give_up_after:.0f} s {come} of {depth} commands have come to {self._name}")
            await asyncio.sleep(every)
        return time.perf_counter()


@asynccontextmanager
async def mailbox(amqp: str, prefix: str) -> AsyncGenerator[Mailbox]:
    """Declare the queue, and delete it with what the orchestrator declares when the block ends."""
    connection = await aio_pika.connect(amqp, timeout=30)
    async with connection, connection.channel() as channel:
        await channel.declare_queue(f"{prefix}{QUEUE}", durable=True, arguments={"x-queue-type": "quorum"})
        try:
            yield Mailbox(channel, f"{prefix}{QUEUE}")
        finally:
            for name in (QUEUE, *_LEFT_BEHIND):
                await channel.queue_delete(f"{prefix}{name}")
                await channel.queue_delete(f"{prefix}{name}.dead")
            for name in ("events", "orchestrator.main.replies.owner"):
                await channel.exchange_delete(f"{prefix}{name}")
