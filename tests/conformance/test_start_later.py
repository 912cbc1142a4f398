"""A saga started from another database: with the caller's transaction or not at all, and once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel
from sqlalchemy import create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import SAGA_ID, Envelope
from messaging.memory import MemoryTransport
from messaging.outbox import Relay
from messaging.sql import SqlOutbox, create_tables, tables
from messaging.transport import Delivery, Outgoing, Transport
from orchestrator import Delay, Orchestrator, OrchestratorSettings, Saga, SagaClient, running, start_later
from orchestrator.engine import Engine
from orchestrator.evidence import refused_start
from orchestrator.incoming import Start, read_event
from orchestrator.instance import SagaStatus
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.start import new_instance
from orchestrator.start_messages import SAGA_KEY, start_message
from orchestrator.version_keeper import VersionKeeper
from orchestrator.workers import this_process
from tests.conformance.stores import NOON, MovableClock, load, make_store, opened, sqlite_url
from tests.conformance.transport_backends import MemoryBackend, RabbitBackend, RedisBackend, TransportBackend
from tests.support.broker import Broker
from tests.support.programs import until
from tests.support.redis_keys import keys_removed

HOUR = timedelta(hours=1)


class Trip(BaseModel):
    number: int
    class_: str = "economy"


class Resting(Delay[Trip]):
    def until(self, state: Trip) -> timedelta:
        return timedelta(0)


class Still(Delay[Trip]):
    def until(self, state: Trip) -> timedelta:
        return HOUR


class BookTrip(Saga[Trip]):
    name = "book-trip"
    steps = (Resting(),)


class BookTripV2(Saga[Trip]):
    name = "book-trip"
    version = 2
    steps = (Still(), Resting())


# -- from one database, over a broker, into the other


@pytest.fixture(params=["memory", "rabbitmq", "redis"])
async def transport(request: pytest.FixtureRequest, prefix: str) -> AsyncIterator[Transport]:
    backend: TransportBackend = MemoryBackend()
    stack = AsyncExitStack()
    if request.param == "rabbitmq":
        broker = await stack.enter_async_context(Broker(request.getfixturevalue("amqp_url")))
        for queue in ("replies", "events"):
            broker.service_queue(f"{prefix}orchestrator.main.{queue}")
        broker.exchange(f"{prefix}events")
        backend = RabbitBackend(broker.url, prefix, broker)
    elif request.param == "redis":
        url = request.getfixturevalue("redis_url")
        await stack.enter_async_context(keys_removed(url, prefix))
        backend = RedisBackend(url, prefix, survives_restart=True)
    async with stack:
        await backend.transport.open()
        yield backend.transport
        await backend.transport.close()


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """The caller's own database."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    await create_tables(engine)
    yield engine
    await engine.dispose()


async def test_what_is_committed_in_one_database_starts_a_saga_in_another(
    transport: Transport, shop: AsyncEngine, migrated_database: str
) -> None:
    sessions = async_sessionmaker(shop)
    settings = OrchestratorSettings.model_validate({"database_url": migrated_database})
    sagas = create_async_engine(migrated_database)
    client = SagaClient(sagas)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(sagas.dispose)
        async with sessions() as never_committed:
            lost = await start_later(BookTrip, Trip(number=1), session=never_committed)
        async with sessions.begin() as session:
            first = await start_later(BookTrip, Trip(number=2), key="trip-2", session=session)
            again = await start_later(BookTrip, Trip(number=2), key="trip-2", session=session, saga_id=first)
            other = await start_later(BookTrip, Trip(number=2), key="trip-2", session=session)

        await stack.enter_async_context(running(Orchestrator([BookTrip]), settings=settings, transport=transport))
        await Relay(SqlOutbox(sessions), transport).drain_once()

        async def arrived() -> bool:
            async with sagas.connect() as connection:
                return bool(await connection.run_sync(refused_start, other))

        await until(arrived)
        assert again == first
        assert (await client.wait(first, timeout=timedelta(seconds=30))).status is SagaStatus.COMPLETED
        assert [row.saga_id async for row in client.list()] == [first]
        assert lost != first
        async with sagas.connect() as connection:
            assert f"its key 'trip-2' belongs to saga {first}" in await connection.run_sync(refused_start, other)
            assert await connection.run_sync(refused_start, lost) == ""


def test_a_blocking_caller_and_a_plain_cursor_do_the_same(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    tables().metadata.create_all(engine)
    chosen = uuid4()
    with engine.begin() as connection:
        assert start_later(BookTrip, Trip(number=1), session=connection, saga_id=chosen) == chosen
    with closing(sqlite3.connect(tmp_path / "shop.db")) as plain, plain:
        cursor = plain.cursor()
        cursor.execute("BEGIN")
        by_cursor = start_later(BookTrip, Trip(number=2), session=cursor, installation="eu")

    outbox = tables().outbox.c
    columns = (outbox.message_id, outbox.type, outbox.routing_key)
    with engine.connect() as connection:
        rows = connection.execute(select(*columns).order_by(outbox.id)).all()
    engine.dispose()
    assert [tuple(row) for row in rows] == [
        (str(chosen), "saga-start:book-trip:1", "orchestrator.main.events"),
        (str(by_cursor), "saga-start:book-trip:1", "orchestrator.eu.events"),
    ]


# -- taken


class Taker:
    """A process that takes start messages off the queue, on one store."""

    def __init__(self, store: Any, *sagas: type[Saga[Any]]) -> None:
        self.store, self.registry = store, SagaRegistry(sagas)
        self.engine = Engine(self.registry, store, Sender(MemoryTransport(), "replies", timeout=HOUR))
        self.keeper = VersionKeeper(self.engine, store, self.registry, this_process(self.registry.pins))

    async def take(self, envelope: Envelope) -> Any:
        item = read_event(Delivery(envelope, "events", tag=1, epoch=1), {}, DEFAULT_LIMITS, HOUR)
        await self.engine.keep_events([item])  # type: ignore[list-item]
        return item


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else ""
    if request.param == "postgresql":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


def message(number: int = 7, *, key: str | None = None, saga: type[Saga[Trip]] = BookTrip) -> Outgoing:
    return start_message(new_instance(saga, Trip(number=number), key, "", NOON), "main")


async def test_a_message_that_comes_twice_starts_one_saga(store: Any) -> None:
    taker, start = Taker(store, BookTrip), message(key="trip-7").envelope

    for _ in range(2):
        await taker.take(start)

    assert await taker.engine.wake(10, deadlines=True) == 1
    saga = await load(store, UUID(start.message_id))
    assert (saga.status, saga.business_key, saga.state) == (
        SagaStatus.RUNNING,
        "trip-7",
        '{"number":7,"class_":"economy"}',
    )


async def test_any_language_starts_the_latest_version_without_naming_one(store: Any) -> None:
    taker, chosen = Taker(store, BookTrip, BookTripV2), uuid4()
    headers = {SAGA_ID: str(chosen), SAGA_KEY: "trip-8"}

    await taker.take(Envelope("m-1", b'{"number": 8}', "saga-start:book-trip", headers=headers))

    saga = await load(store, chosen)
    assert (saga.pin.version, saga.business_key) == (2, "trip-8")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"body": b'{"number": "many"}'}, "it starts no 'book-trip': the body is no Trip: number: "),
        ({"type": "saga-start:fly-to-mars"}, "no saga of 'saga-start:fly-to-mars' is known"),
        ({"type": "saga-start:book-trip:9"}, "no saga of 'saga-start:book-trip:9' is known"),
        ({"headers": {}}, "a start message needs a UUID as saga-id"),
        ({"headers": {SAGA_ID: str(uuid4()), SAGA_KEY: ""}}, "its key must be 1 to 255 characters"),
    ],
)
async def test_what_can_start_nothing_is_kept_whole_with_why(changed: dict[str, Any], why: str, tmp_path: Path) -> None:
    async with opened(make_store("sqlite", sqlite_url(tmp_path), MovableClock())) as store:
        taker: Any = Taker(store, BookTrip)
        start = replace(message().envelope, **changed)

        await taker.take(start)

        async with taker.store.engine.connect() as connection:
            (kept,) = (await connection.execute(text("SELECT reason, body, saga_id FROM saga_unmatched"))).all()
        assert why in kept.reason
        assert kept.body == start.body
        assert kept.saga_id == start.headers.get(SAGA_ID), "saga why finds it"
        assert await taker.engine.wake(10, deadlines=True) == 0


async def test_a_start_of_a_version_that_only_another_release_has_is_left_to_that_one(store: Any) -> None:
    old, new = Taker(store, BookTrip), Taker(store, BookTrip, BookTripV2)
    await new.keeper.beat()
    start = message(saga=BookTripV2).envelope

    item = await old.take(start)

    assert isinstance(item, Start)
    assert await old.keeper.read_events() == 0
    assert [await new.keeper.read_events() for _ in range(2)] == [1, 0]
    assert (await load(store, UUID(start.message_id))).pin.version == 2
