"""A message is committed with the caller's own work or not at all, through whatever the caller works with."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias

import psycopg
import pytest
from sqlalchemy import create_engine, insert, make_url, select
from sqlalchemy.ext.asyncio import async_scoped_session, create_async_engine
from sqlalchemy.orm import scoped_session, sessionmaker

from messaging import BlockingBus, Bus, Command, Event, Reply, Service
from messaging.envelope import Envelope, to_queue
from messaging.errors import OutboxRefused
from messaging.memory import MemoryTransport
from messaging.middleware import Middleware, PublishNext
from messaging.sql import SqlOutbox, create_tables, tables
from messaging.sql.sessions import BlockingSession
from messaging.sql.writing import after_commit, write_outgoing
from messaging.transport import Outgoing
from tests.conformance.sql_backends import Sessions, sessions
from tests.support.django_connections import django_connection

__all__ = ["sessions"]

shop = Service("shop")
inbox = tables().inbox  # stands for a table of the user's own
WORK = {"service": "shop", "idempotency_key": "work", "undone": False, "claimed_at": datetime(2026, 3, 1, tzinfo=UTC)}


class Paid(Event):
    order: str = ""


class Charge(Command[Reply]):
    order: str = ""


class ChangedMind(Exception):
    """Has a transaction rolled back."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database with the tables, for blocking drivers."""
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("migrated_database").replace("asyncpg", "psycopg")
    engine = create_engine(url)
    tables().metadata.create_all(engine)
    engine.dispose()
    return url


Transactions: TypeAlias = Callable[[str], AbstractContextManager[BlockingSession]]
"""A transaction with some work in it; it is rolled back when its block raises."""


@contextmanager
def of_a_session(url: str) -> Iterator[BlockingSession]:
    engine = create_engine(url)
    with sessionmaker(engine).begin() as session:
        session.execute(insert(inbox).values(WORK))
        yield session
    engine.dispose()


@contextmanager
def of_a_scoped_session(url: str) -> Iterator[BlockingSession]:
    """As Flask-SQLAlchemy's `db.session` is one."""
    engine = create_engine(url)
    session = scoped_session(sessionmaker(engine))
    with session.begin():
        session.execute(insert(inbox).values(WORK))
        yield session
    session.remove()
    engine.dispose()


@contextmanager
def of_a_connection(url: str) -> Iterator[BlockingSession]:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(insert(inbox).values(WORK))
        yield connection
    engine.dispose()


_WORK_SQL = (
    "INSERT INTO message_inbox (service, idempotency_key, undone, claimed_at) "
    "VALUES ('shop', 'work', false, '2026-03-01 00:00:00.000000')"
)


@contextmanager
def of_a_drivers_cursor(url: str) -> Iterator[BlockingSession]:
    connection: Any = _plain(url)
    with connection:
        cursor = connection.cursor()
        cursor.execute(_WORK_SQL)
        yield cursor
    connection.close()


def _plain(url: str) -> Any:
    if url.startswith("sqlite"):
        return sqlite3.connect(str(make_url(url).database))
    return psycopg.connect(url.replace("+psycopg", ""))


@contextmanager
def of_django(url: str) -> Iterator[BlockingSession]:
    from django.db import transaction

    with django_connection(url) as connection, transaction.atomic(connection.alias), connection.cursor() as cursor:
        cursor.execute(_WORK_SQL)
        yield cursor


EVERY_KIND = pytest.mark.parametrize(
    "begun", [of_a_session, of_a_scoped_session, of_a_connection, of_a_drivers_cursor, of_django]
)


def written(url: str) -> list[Outgoing]:
    """What a relay finds."""
    engine = create_engine(url)
    now = datetime.now(UTC) + timedelta(seconds=1)
    claim = SqlOutbox(sessionmaker(engine)).claim(now=now, lease_until=now + timedelta(days=1), limit=10)
    rows = asyncio.run(claim).rows
    engine.dispose()
    return [row.outgoing for row in rows]


def worked(url: str) -> bool:
    engine = create_engine(url)
    with engine.connect() as connection:
        rows = connection.execute(select(inbox.c.idempotency_key)).all()
    engine.dispose()
    return len(rows) == 1


@EVERY_KIND
def test_what_a_service_writes_is_there_with_the_work_when_that_commits(url: str, begun: Transactions) -> None:
    with begun(url) as session:
        paid = shop.publish(Paid(order="Zoë's 100%"), session=session, ordering_key="42", headers={"number": 1})
        charged = shop.send(Charge(order="1"), to="payments", session=session, idempotency_key="k")

    assert worked(url)
    events = {outgoing.envelope.message_id: outgoing for outgoing in written(url)}
    event, order = events[paid.message_id], events[charged.message_id]
    assert event.envelope.body == '{"order":"Zoë\'s 100%"}'.encode()
    assert (event.ordering_key, event.destination.exchange, event.destination.mandatory) == ("42", "events", False)
    assert (event.envelope.app_id, event.envelope.headers["number"]) == ("shop", 1)
    assert event.envelope.timestamp is not None and event.envelope.timestamp.tzinfo is UTC
    assert (order.destination, order.envelope.headers["idempotency-key"]) == (to_queue("payments"), "k")


@EVERY_KIND
def test_what_is_rolled_back_with_the_work_is_not_there(url: str, begun: Transactions) -> None:
    def abandoned() -> None:
        with begun(url) as session:
            shop.publish(Paid(), session=session)
            raise ChangedMind

    with pytest.raises(ChangedMind):
        abandoned()

    assert not worked(url)
    assert written(url) == []


@EVERY_KIND
def test_every_kind_of_session_writes_the_same(url: str, begun: Transactions) -> None:
    envelope = Envelope(
        "m-1",
        b'{"a":1}',
        "paid",
        correlation_id="c",
        reply_to="r",
        timestamp=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
        headers={"text": "ü", "yes": True},
    )
    outgoing = [Outgoing(envelope, to_queue("mailer"), ordering_key=key) for key in ("", "k")]

    with begun(url) as session:
        write_outgoing(session, outgoing)

    assert written(url) == outgoing


@EVERY_KIND
def test_a_key_has_one_order_whoever_writes(url: str, begun: Transactions) -> None:
    engine = create_engine(url)
    with sessionmaker(engine).begin() as session:
        shop.publish(Paid(order="1"), session=session, ordering_key="k")
    with begun(url) as other:
        shop.publish(Paid(order="2"), session=other, ordering_key="k")
    with sessionmaker(engine).begin() as session:
        shop.publish(Paid(order="3"), session=session, ordering_key="k")
    engine.dispose()

    assert [outgoing.envelope.body for outgoing in written(url)] == [
        b'{"order":"1"}',
        b'{"order":"2"}',
        b'{"order":"3"}',
    ]


def test_a_blocking_bus_writes_through_every_kind_as_well(url: str) -> None:
    bus = BlockingBus(name="shop")
    with of_django(url) as session:
        bus.publish(Paid(order="1"), session=session, ordering_key="k")
        bus.send(Charge(), to="payments", session=session)

    assert {outgoing.ordering_key for outgoing in written(url)} == {"k", ""}


def test_a_cursor_that_is_in_no_transaction_is_refused(url: str) -> None:
    in_django = pytest.raises(OutboxRefused, match=r"with transaction.atomic\(\)")
    with django_connection(url) as connection, connection.cursor() as cursor, in_django:
        shop.publish(Paid(), session=cursor)
    plain = _plain(url)
    if isinstance(plain, sqlite3.Connection):
        plain.isolation_level = None
    else:
        plain.autocommit = True
    with pytest.raises(OutboxRefused, match="Begin a transaction first"):
        shop.publish(Paid(), session=plain.cursor())
    plain.cursor().execute("BEGIN")
    shop.publish(Paid(), session=plain.cursor())
    plain.cursor().execute("ROLLBACK")
    plain.close()

    assert written(url) == []


class AwaitedCursor:
    """As psycopg's `AsyncCursor`: a statement that is not awaited never runs."""

    async def execute(self, query: str) -> None:
        raise AssertionError

    async def fetchone(self) -> None:
        raise AssertionError


def test_what_nothing_can_be_written_through_is_refused_by_name(url: str, sessions: Sessions) -> None:
    bus, engine = BlockingBus(name="shop"), create_engine(url)
    session: Any
    for session in (engine, "session", sessions(), AwaitedCursor()):
        with pytest.raises(OutboxRefused, match=rf"session= is of .*{type(session).__name__}\. Give a session"):
            bus.publish(Paid(), session=session)
    engine.dispose()

    assert written(url) == []


def test_django_is_asked_to_tell_of_its_commit(url: str) -> None:
    told: list[str] = []
    from django.db import transaction

    with django_connection(url) as connection:
        with transaction.atomic(connection.alias), connection.cursor() as cursor:
            after_commit(cursor, lambda: told.append("committed"))
            assert told == []
        assert told == ["committed"]


async def test_a_service_writes_through_sessions_and_connections_of_coroutines(sessions: Sessions) -> None:
    engine = sessions.kw["bind"]
    async with sessions() as session:
        await shop.publish(Paid(order="rolled back"), session=session)
        await session.rollback()
    async with sessions.begin() as session:
        first = await shop.publish(Paid(order="1"), session=session)
    async with engine.begin() as connection:
        second = await shop.send(Charge(order="2"), to="payments", session=connection)
    scoped = async_scoped_session(sessions, asyncio.current_task)
    async with scoped.begin(), Bus(MemoryTransport()) as bus:
        third = await shop.publish(Paid(order="3"), session=scoped)
        fourth = await bus.publish(Paid(order="4"), session=scoped)
    await scoped.remove()

    now = datetime.now(UTC) + timedelta(seconds=1)
    claimed = await SqlOutbox(sessions).claim(now=now, lease_until=now + timedelta(days=1), limit=10)
    assert [row.outgoing.envelope.message_id for row in claimed.rows] == [first, second, third, fourth]


class Signed(Middleware):
    """Signs what is sent."""

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        headers = {**outgoing.envelope.headers, "signature": "shop"}
        await call_next(replace(outgoing, envelope=replace(outgoing.envelope, headers=headers)))


@EVERY_KIND
def test_the_middleware_of_a_service_stands_around_what_it_writes_outside_handlers(
    url: str, begun: Transactions
) -> None:
    signing = Service("signing")
    signing.use(Signed())
    with begun(url) as session:
        signing.publish(Paid(), session=session)

    assert [outgoing.envelope.headers["signature"] for outgoing in written(url)] == ["shop"]


async def test_middleware_stands_around_what_coroutines_write(sessions: Sessions) -> None:
    signing = Service("signing")
    signing.use(Signed())
    async with sessions.begin() as session:
        await signing.publish(Paid(), session=session)
        (headers,) = (await session.execute(select(tables().outbox.c.headers))).scalars()

    assert '"signature": "shop"' in headers


async def test_an_order_is_kept_in_an_outbox_only(tmp_path: Path) -> None:
    async with Bus(MemoryTransport()) as bus:
        with pytest.raises(OutboxRefused, match="only an outbox keeps an order"):
            await bus.publish(Paid(), ordering_key="42")
        with pytest.raises(OutboxRefused, match="say session="):
            await bus.send(Charge(), to="payments", ordering_key="42")
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}")
    await create_tables(engine)
    async with engine.begin() as connection:
        await bus.publish(Paid(), session=connection, ordering_key="42")
    await engine.dispose()


async def test_a_savepoint_is_no_commit_and_a_commit_is_told_once(sessions: Sessions) -> None:
    told: list[str] = []

    def tell() -> None:
        told.append("committed")

    async with sessions() as session:
        after_commit(session, tell)
        async with session.begin_nested():
            after_commit(session, tell)
        assert told == []
        await session.commit()
        await session.commit()
    assert told == ["committed"]
