"""Many sagas are started at once as each would be alone, on every store, by both clients."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Engine, create_engine, event, text, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from messaging.messages import Command, Reply
from orchestrator import BlockingSagaClient, Saga, SagaClient, Searchable, StateUnusable, Step
from orchestrator.instance import SagaStatus
from orchestrator.sql import SqlStore
from orchestrator.sql.tables import saga_instance
from tests.conformance.stores import PSYCOPG, make_store, opened, sqlite_url


class Parcel(BaseModel):
    address: Annotated[str, Searchable]
    note: str = ""


class Sent(Reply): ...


class Send(Command[Sent]): ...


class Sending(Step[Parcel, Sent]):
    participant = "post"
    nothing_to_undo = True

    def command(self, state: Parcel) -> Send:
        return Send()


class SendParcel(Saga[Parcel]):
    name = "send-parcel"
    keep_states = True
    steps = (Sending(),)


class SendAgain(Saga[Parcel]):
    name = "send-again"
    reuse_key_after_end = True
    steps = (Sending(),)


@pytest.fixture(params=["sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, None)) as store:
        yield store


@pytest.fixture
def blocking(store: SqlStore) -> Iterator[Engine]:
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    engine = create_engine(store.engine.url.set(drivername=drivers[store.engine.dialect.name]))
    yield engine
    engine.dispose()


@contextmanager
def statements(store: SqlStore) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(*args: Any) -> None:
        sent.append(args[2])

    event.listen(store.engine.sync_engine, "before_cursor_execute", note)
    yield sent
    event.remove(store.engine.sync_engine, "before_cursor_execute", note)


def parcels(*keys: str | None) -> list[tuple[str | None, Parcel]]:
    return [(key, Parcel(address=f"{number}, Quay")) for number, key in enumerate(keys)]


async def test_each_is_what_it_would_be_if_it_were_started_alone(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    many = await client.start_many(SendParcel, parcels("a", None, "b"))
    alone = [await client.start(SendParcel, state, key=key) for key, state in parcels("c", None, "d")]

    for one, other in zip(many, alone, strict=True):
        row, like = await client.get(one.id), await client.get(other.id)
        assert one.created and (row.status, row.version, row.current_step) == (SagaStatus.RUNNING, like.version, None)
        assert await client.state(SendParcel, one.id) == await client.state(SendParcel, other.id)
    async with store.engine.connect() as connection:
        for table, rows in (("saga_key", 4), ("saga_search", 6), ("saga_state", 6), ("saga_step", 0)):
            assert (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one() == rows
        differing = text("SELECT count(DISTINCT wake_at = started_at) FROM saga_instance WHERE revision = 0")
        assert (await connection.execute(differing)).scalar_one() == 1


async def test_what_has_a_taken_key_is_told_whose_it_is_and_the_others_are_started(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    first = await client.start(SendParcel, Parcel(address="0, Quay"), key="b")

    a, b, again, none = await client.start_many(SendParcel, parcels("a", "b", "a", None))

    assert (a.created, b.created, again.created, none.created) == (True, False, False, True)
    assert (b.id, again.id) == (first.id, a.id)
    assert (await client.state(SendParcel, a.id)).address == "0, Quay"  # the first of those with its key


async def test_keys_of_sagas_that_have_ended_are_taken_over_where_the_definition_says_so(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    ended, live = await client.start_many(SendAgain, parcels("a", "b"))
    async with store.engine.begin() as connection:
        end = update(saga_instance).where(saga_instance.c.id == ended.id)
        await connection.execute(end.values(status="completed", ended_at=saga_instance.c.started_at, wake_at=None))

    a, b = await client.start_many(SendAgain, parcels("a", "b"))

    assert a.created and a.id != ended.id
    assert (b.created, b.id) == (False, live.id)


async def test_one_that_cannot_be_stored_leaves_none(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    with pytest.raises(StateUnusable):
        await client.start_many(SendParcel, [("a", Parcel(address="0, Quay")), ("", Parcel(address="1, Quay"))])
    assert [row async for row in client.list()] == []


async def test_none_is_no_work(store: SqlStore) -> None:
    assert await SagaClient(store.engine).start_many(SendParcel, []) == []


async def test_they_go_with_the_callers_transaction(store: SqlStore, blocking: Engine) -> None:
    client, twin = SagaClient(store.engine), BlockingSagaClient(blocking)
    async with AsyncSession(store.engine) as session:
        await client.start_many(SendParcel, parcels("a", "b"), session=session)
        await session.rollback()
    assert [row async for row in client.list()] == []
    with Session(blocking) as session_of_thread:
        started = twin.start_many(SendParcel, parcels("a", "b"), session=session_of_thread)
        session_of_thread.commit()
    assert {row.saga_id async for row in client.list()} == {one.id for one in started}
    assert [one.created for one in twin.start_many(SendParcel, parcels("a", "c"))] == [False, True]


async def test_their_number_costs_no_statement(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    counts = []
    for many in (2, 20):
        with statements(store) as sent:
            await client.start_many(SendAgain, parcels(*(f"{many}-{number}" for number in range(many))))
        counts.append(len(sent))
    keys_apart = store.engine.dialect.name == "sqlite"
    assert counts == [2 + keys_apart] * 2  # sagas with their keys, and what they are found by


async def test_two_who_start_the_same_in_opposite_orders_never_wait_in_a_circle(store: SqlStore) -> None:
    client = SagaClient(store.engine)
    keys = [f"{number}" for number in range(50)]

    rounds = await asyncio.gather(
        *(client.start_many(SendParcel, parcels(*(keys if turn % 2 else keys[::-1]))) for turn in range(6))
    )

    assert sum(one.created for started in rounds for one in started) == len(keys)
    assert len({one.id for started in rounds for one in started}) == len(keys)
