"""`saga relay`, killed between claim, publish and mark: nothing is lost, copies are copies, keys keep their order."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from messaging import Command, Reply, Service
from messaging.settings import MessagingSettings
from messaging.sql import tables
from messaging.transport import QueueSpec, Subscription
from messaging.wiring import transport_from
from orchestrator.sql.migrate import upgrade
from tests.support.broker import Broker
from tests.support.programs import until
from tests.support.redis_keys import keys_removed

PLACES = ("relay.claimed", "relay.published", "relay.marked")
WAIT = 60
PATIENCE = 60
BACKLOG = 200

shop = Service("shop")


class Note(Command[Reply]):
    key: str
    number: int


class Surroundings:
    """A database that is written to, relays in processes of their own, and a queue where everything arrives."""

    def __init__(self, engine: AsyncEngine, url: str, queue: Subscription, environment: dict[str, str]) -> None:
        self.sessions, self.url, self.queue = async_sessionmaker(engine), url, queue
        self.environment = environment
        self.written: dict[str, list[str]] = {}
        self.received: list[tuple[str, str]] = []
        self.room = asyncio.Condition()
        self.writing = True

    @property
    def waiting(self) -> int:
        return sum(map(len, self.written.values())) - len({message_id for _, message_id in self.received})

    async def write(self, key: str, lot: random.Random) -> None:
        """One transaction after the other; some are rolled back."""
        number = 0
        while self.writing:
            async with self.room:
                await self.room.wait_for(lambda: self.waiting < BACKLOG or not self.writing)
            kept, ids = lot.random() < 0.8, list[str]()
            async with self.sessions() as session:
                for _ in range(lot.randint(1, 4)):
                    number += 1
                    note, ordering_key = Note(key=key, number=number), "" if key == "plain" else key
                    ids.append(await shop.send(note, to="notes", session=session, ordering_key=ordering_key))
                # Before the commit: what it starts may arrive before we go on here.
                self.written.setdefault(key, []).extend(ids if kept else [])
                await (session.commit() if kept else session.rollback())

    async def receive(self) -> None:
        while True:
            deliveries = await self.queue.take(100)
            for delivery in deliveries:
                note = json.loads(delivery.envelope.body)
                self.received.append((note["key"], delivery.envelope.message_id))
            await self.queue.ack(deliveries)
            async with self.room:
                self.room.notify_all()

    async def relay(self, failpoint: str = "") -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "orchestrator", "relay", "--database-url", self.url),
            *("--lease", "1", "--poll", "0.02", "--log-level", "error"),
            env={**self.environment, "ORCHESTRATOR_FAILPOINT": failpoint},
        )

    async def killed_at(self, failpoints: Iterable[str]) -> None:
        """Kill one relay after the other at these lines; where one is not reached so often, anywhere."""
        for failpoint in failpoints:
            process = await self.relay(failpoint)
            before = len(self.received)
            try:
                await asyncio.wait_for(process.wait(), PATIENCE)
            except TimeoutError:
                assert len(self.received) > before, f"nothing arrived in {PATIENCE} s"
            finally:
                if process.returncode is None:
                    process.kill()
            assert await process.wait() == -signal.SIGKILL

    async def relayed(self) -> None:
        """Let a relay that nobody kills finish the work."""
        process = await self.relay()

        async def everything() -> bool:
            return self.waiting == 0 and await self.left() == 0

        try:
            await until(everything, within=WAIT)
        finally:
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), WAIT) == 0

    async def left(self) -> int:
        async with self.sessions() as session:
            return await session.scalar(select(func.count()).select_from(tables().outbox)) or 0

    def first_copies(self, key: str) -> list[str]:
        return list(dict.fromkeys(message_id for of_key, message_id in self.received if of_key == key))


@pytest.fixture(params=["sqlite", "postgresql", "postgresql redis"])
async def surroundings(
    request: pytest.FixtureRequest, broker: Broker, redis_url: str, prefix: str, tmp_path: Path
) -> AsyncIterator[Surroundings]:
    url = f"sqlite+aiosqlite:///{tmp_path / 'notes.db'}"
    if "postgresql" in request.param:
        url = request.getfixturevalue("postgres_database")
    upgrade(url, only="messaging")
    broker.service_queue(f"{prefix}notes")
    bus_url = redis_url if "redis" in request.param else broker.url
    engine = create_async_engine(url, connect_args={"timeout": WAIT})
    transport = transport_from(MessagingSettings(broker_url=SecretStr(bus_url), prefix=prefix))
    async with keys_removed(redis_url, prefix):
        await transport.open()
        await transport.declare([QueueSpec("notes")])
        queue = await transport.subscribe("notes", prefetch_messages=200)
        bus = {"MESSAGING_BROKER_URL": bus_url, "MESSAGING_PREFIX": prefix}
        yield Surroundings(engine, url, queue, {**os.environ, **bus})
        await transport.close()
        await engine.dispose()


@asynccontextmanager
async def busy(here: Surroundings, keys: Sequence[str]) -> AsyncIterator[None]:
    """Written to and received from; at the end nothing more is written."""
    receiving = asyncio.create_task(here.receive())
    writing = asyncio.gather(*(here.write(key, random.Random(key)) for key in keys))
    try:
        yield
        here.writing = False
        async with here.room:
            here.room.notify_all()
        await writing
        await here.relayed()
    finally:
        writing.cancel()
        receiving.cancel()


async def held_to_its_word(here: Surroundings, chains: Sequence[Iterable[str]]) -> None:
    """Kill relays, one of each chain at a time, and compare what was written with what arrived."""
    keys = [*(f"key-{number}" for number in range(5)), "plain"]
    async with busy(here, keys):
        await asyncio.gather(*(here.killed_at(chain) for chain in chains))
    for key in keys:
        arrived = here.first_copies(key)
        assert len(arrived) > 0
        if key == "plain":
            assert sorted(arrived) == sorted(here.written[key])
        else:
            assert arrived == here.written[key]


async def test_relays_killed_at_each_line_lose_nothing_and_keep_the_order_of_each_key(
    surroundings: Surroundings,
) -> None:
    chains = [("relay.claimed:2", "relay.published:7"), ("relay.marked:3",)]
    sqlite = surroundings.url.startswith("sqlite")
    await held_to_its_word(surroundings, chains[:1] if sqlite else chains)


@pytest.mark.torture
@pytest.mark.parametrize("surroundings", ["postgresql", "postgresql redis"], indirect=True)
async def test_relays_killed_two_hundred_times_lose_nothing_and_keep_the_order_of_each_key(
    surroundings: Surroundings,
) -> None:
    lot = random.Random(4711)
    chains = [[f"{lot.choice(PLACES)}:{lot.randint(1, 20)}" for _ in range(100)] for _ in range(2)]
    await held_to_its_word(surroundings, chains)
