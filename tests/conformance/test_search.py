"""Sagas are found by what their states say: by an index where a field is marked, else by reading, on every store."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import Connection, Engine, create_engine, event, insert, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.messages import Command, Reply
from orchestrator import BlockingSagaClient, Saga, Searchable, SearchRefused, SearchValue, Step, SubSaga
from orchestrator.client import SagaClient
from orchestrator.registry import pin_of
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import Decision, UpgradeRequested
from orchestrator.sql import SqlStore
from orchestrator.sql.reindex import reindex, some_of
from orchestrator.sql.tables import saga_instance, saga_search
from orchestrator.start import new_instance
from orchestrator.status import SagaFilter, list_sagas
from orchestrator.store_records import NewSignal
from orchestrator.version_keeper import VersionKeeper
from orchestrator.workers import this_process
from tests.conformance.replicas import Replica
from tests.conformance.stores import NOON, PSYCOPG, MovableClock, make_store, opened, sqlite_url
from tests.support.programs import ROOT

ANN = UUID("0198c0de-0000-7000-8000-000000000001")
MIDNIGHT = datetime(2031, 2, 3, tzinfo=UTC)


class Channel(StrEnum):
    WEB = "web"
    SHOP = "shop"


class Size(Enum):
    SMALL = 1
    LARGE = 2


class Address(BaseModel):
    city: str = "Bonn"
    lifted: bool = False


class Order(BaseModel):
    customer: Annotated[str, Searchable] = "c-17"
    channel: Annotated[Channel, Searchable] = Channel.WEB
    size: Annotated[Size, Searchable] = Size.SMALL
    lines: Annotated[int, Searchable] = 3
    gift: Annotated[bool, Searchable] = False
    due: Annotated[date | None, Searchable] = None
    placed_at: Annotated[datetime, Searchable] = MIDNIGHT
    amount: Annotated[Decimal, Field(ge=0), Searchable] = Decimal("9.50")
    person: Annotated[UUID, Field(alias="personId"), Searchable] = ANN
    address: Address = Address()
    note: str = ""


EVERYTHING = {
    "customer": "c-17",
    "channel": "web",
    "size": "1",
    "lines": "3",
    "gift": "false",
    "due": "null",
    "placed_at": "2031-02-03T00:00:00Z",
    "amount": "9.50",
    "personId": str(ANN),
}


class Done(Reply): ...


class Do(Command[Done]): ...


class Packing(Step[Order, Done]):
    participant = "warehouse"
    nothing_to_undo = True

    def command(self, state: Order) -> Do:
        return Do()

    def on_reply(self, state: Order, reply: Done) -> None:
        state.lines, state.note = 4, "packed"


class Weighing(Packing):
    """It changes nothing that a saga is found by."""

    def on_reply(self, state: Order, reply: Done) -> None:
        state.note = "weighed"


class Ship(Saga[Order]):
    steps = (Weighing(), Packing())


class Plain(BaseModel):
    customer: str = "c-17"
    note: str = ""


class Filing(Step[Plain, Done]):
    participant = "archive"
    nothing_to_undo = True

    def command(self, state: Plain) -> Do:
        return Do()

    def on_reply(self, state: Plain, reply: Done) -> None:
        state.note = "filed"


class File(Saga[Plain]):
    steps = (Filing(),)


class Marked(Plain):
    customer: Annotated[str, Searchable] = "c-17"
    shelf: Annotated[str, Searchable] = "a"


class MarkedFiling(Filing):
    name = "Filing"


class MarkedFile(Saga[Marked]):
    """The same after a deployment: a mark is no other version."""

    name = "file"
    steps = (MarkedFiling(),)


class OtherMark(Plain):
    note: Annotated[str, Searchable] = ""


class FileAgain(Saga[OtherMark]):
    name = "file"
    version = 2
    steps = (MarkedFiling(),)


class Sending(SubSaga[Plain, Order]):
    saga = Ship

    def child_state(self, state: Plain) -> Order:
        return Order(customer=state.customer)


class Deliver(Saga[Plain]):
    steps = (Sending(),)


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = ""
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


async def kept(store: Any, saga_id: UUID) -> dict[str, str]:
    """What a saga is found by."""
    if not isinstance(store, SqlStore):
        return {field: value for (one, field), value in store.tables.search.items() if one == saga_id}
    async with store.engine.connect() as connection:
        rows = await connection.execute(
            text("SELECT field, value FROM saga_search WHERE CAST(saga_id AS text) = :it"), {"it": str(saga_id)}
        )
        return {row.field: row.value for row in rows}


@contextmanager
def every(engine: Engine | type[Engine], seen: list[Any]) -> Iterator[None]:
    """Take note of each statement, with its parameters."""

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    yield
    event.remove(engine, "before_cursor_execute", note)


@contextmanager
def written(store: Any) -> Iterator[list[Any]]:
    """The statements that write what sagas are found by."""
    seen: list[Any] = []
    if not isinstance(store, SqlStore):
        yield seen
        return
    mine: list[Any] = []
    with every(Engine, seen):  # of all engines: SQLite's writer has one of its own
        yield mine
    mine += [one for one in seen if "saga_search" in one[0]]


# -- what is kept


async def test_each_kind_of_value_is_kept_as_the_state_has_it_from_the_start(store: Any) -> None:
    saga_id = await Replica(store, Ship).start(Ship, Order())
    assert await kept(store, saga_id) == EVERYTHING


async def test_what_changes_is_kept_anew_with_the_change_and_nothing_else_is(store: Any) -> None:
    replica = Replica(store, Ship)
    saga_id, other = await replica.start(Ship, Order()), await replica.start(Ship, Order())
    with written(store) as statements:
        await replica.answer(saga_id, Weighing)
    assert statements == []

    with written(store) as statements:
        await replica.answer(saga_id, Packing)

    assert await kept(store, saga_id) == {**EVERYTHING, "lines": "4"}
    assert await kept(store, other) == EVERYTHING
    assert len(statements) == isinstance(store, SqlStore)


async def test_a_batch_keeps_what_changed_in_one_statement(store: Any) -> None:
    replica = Replica(store, Ship)
    with written(store) as at_start:
        sagas = [await replica.start(Ship, Order()) for _ in range(3)]
    for saga_id in sagas:
        await replica.answer(saga_id, Weighing)
    commands = [await replica.command(saga_id, Packing) for saga_id in sagas]
    with written(store) as statements:
        await replica.reply(*commands)
    assert [(await kept(store, saga_id))["lines"] for saga_id in sagas] == ["4", "4", "4"]
    assert (len(at_start), len(statements)) == ((3, 1) if isinstance(store, SqlStore) else (0, 0))


async def test_a_saga_without_searchable_fields_pays_nothing(store: Any) -> None:
    replica = Replica(store, File)
    with written(store) as statements:
        saga_id = await replica.start(File, Plain())
        await replica.answer(saga_id, Filing)
    assert (statements, await kept(store, saga_id)) == ([], {})


async def test_a_child_is_found_as_well(store: Any) -> None:
    replica = Replica(store, Deliver)
    saga_id = await replica.start(Deliver, Plain(customer="c-18"))
    [child] = [UUID(record.awaited_key) for record in (await replica.saga(saga_id)).steps.values()]
    assert (await kept(store, child), await kept(store, saga_id)) == ({**EVERYTHING, "customer": "c-18"}, {})


async def test_a_start_that_finds_its_key_taken_or_is_rolled_back_keeps_nothing(store: Any) -> None:
    first = new_instance(Ship, Order(), "42", "", NOON)
    second, third = (new_instance(Ship, Order(customer="c-18"), key, "", NOON) for key in ("42", "43"))
    async with store.transaction() as tx:
        await tx.start(first)
        assert await tx.start(second) == (first.id, False)
    with suppress(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.start(third)
            raise ZeroDivisionError
    assert [await kept(store, saga.id) for saga in (first, second, third)] == [EVERYTHING, {}, {}]


async def test_what_a_transaction_that_raised_had_changed_is_as_it_was(store: Any) -> None:
    replica = Replica(store, Ship)
    saga_id = await replica.start(Ship, Order())
    with suppress(ZeroDivisionError):
        async with store.transaction() as tx:
            saga = (await tx.lock([saga_id])).sagas[saga_id]
            await tx.save([Decision(saga, search=(("customer", "c-99"), ("lines", None)))])
            raise ZeroDivisionError
    assert await kept(store, saga_id) == EVERYTHING


async def test_an_upgrade_keeps_what_the_new_version_marks_and_nothing_else(store: Any) -> None:
    replica = Replica(store, MarkedFile, FileAgain)
    saga_id = await replica.start(MarkedFile, Marked())
    assert await kept(store, saga_id) == {"customer": "c-17", "shelf": "a"}
    pin, registry = pin_of(FileAgain), replica.registry
    row = signal_to_row(UpgradeRequested(pin.version, pin.fingerprint, "new code", "ann"))
    assert row is not None
    async with store.transaction() as tx:
        await tx.add_signals([NewSignal(saga_id, *row)])

    await VersionKeeper(replica.engine, store, registry, this_process(registry.pins)).upgrade()

    assert (await replica.saga(saga_id)).pin == pin
    assert await kept(store, saga_id) == {"note": ""}


async def test_a_long_value_is_kept_short_and_found_by_all_of_it(any_store: SqlStore) -> None:
    long, longer = "ä" * 300, "ä" * 301
    sagas = SagaClient(any_store.engine)
    started = await sagas.start(Ship, Order(customer=long))
    assert len((await kept(any_store, started.id))["customer"]) == 255
    assert await found(sagas, customer=long) == [started.id]
    assert await found(sagas, customer=longer) == []


# -- what is found


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store  # type: ignore[misc]


async def found(sagas: SagaClient, **where: SearchValue) -> list[UUID]:
    return [row.saga_id async for row in sagas.list(where=where)]


@pytest.mark.parametrize("field", ["marked", "not marked"])
async def test_sagas_are_found_by_values_of_each_kind_marked_or_not(any_store: SqlStore, field: str) -> None:
    sagas = SagaClient(any_store.engine)
    other = Order(
        customer="c-18",
        channel=Channel.SHOP,
        size=Size.LARGE,
        lines=10**6,
        gift=True,
        due=date(2031, 2, 3),
        placed_at=datetime(2031, 2, 3, 1, 2, 3, 4, UTC),
        amount=Decimal("9.5"),
        personId=UUID(int=7),  # type: ignore[call-arg] # pydantic's plugin knows no alias in Annotated
    )
    await sagas.start(Ship, Order())
    wanted = await sagas.start(Ship, other)
    if field == "not marked":
        async with any_store.engine.begin() as connection:
            await connection.execute(text("DELETE FROM saga_search"))
    values: dict[str, SearchValue] = {
        "customer": "c-18",
        "channel": Channel.SHOP,
        "size": Size.LARGE,
        "lines": 10**6,
        "gift": True,
        "due": date(2031, 2, 3),
        "placed_at": other.placed_at,
        "amount": Decimal("9.5"),
        "personId": UUID(int=7),
    }
    for path, value in values.items():
        assert await found(sagas, **{path: value}) == [wanted.id], path
    assert await found(sagas, **values) == [wanted.id]
    assert len(await found(sagas, due=None)) == 1
    assert await found(sagas, customer="c-18", gift=False) == []
    assert await found(sagas, customer="' OR 1=1 --") == await found(sagas, customer="%") == []
    scanned = await sagas.scanned(SagaFilter(where=values))
    assert len(scanned) == (0 if field == "marked" else len(values))


async def test_what_is_inside_of_a_field_is_found_by_reading_and_that_is_told(any_store: SqlStore) -> None:
    sagas = SagaClient(any_store.engine)
    bonn = await sagas.start(Ship, Order())
    ulm = await sagas.start(Ship, Order(address=Address(city="Ulm", lifted=True)))
    assert await found(sagas, **{"address.city": "Ulm"}) == await found(sagas, **{"address.lifted": True}) == [ulm.id]
    assert await found(sagas, **{"address.city": "Ulm", "customer": "c-18"}) == []
    assert await found(sagas, **{"address.zip": None}) == await found(sagas, **{"customer.city": "Ulm"}) == []
    assert await found(sagas, note="") == [ulm.id, bonn.id]

    nested, unmarked = await sagas.scanned(SagaFilter(where={"address.city": "Ulm", "note": "", "customer": "c-17"}))

    assert nested.notice().startswith("address.city is not searchable: this reads every saga; copy it into a field")
    assert unmarked.notice() == (
        "note is not searchable: this reads every saga; mark it: note: Annotated[..., Searchable]"
    )


async def test_threads_find_the_same(any_store: SqlStore) -> None:
    async_sagas = SagaClient(any_store.engine)
    one = await async_sagas.start(Ship, Order(customer="c-18"))
    await async_sagas.start(Ship, Order())
    engine = blocking(any_store)
    sagas = BlockingSagaClient(engine)
    assert [row.saga_id for row in sagas.list(where={"customer": "c-18"})] == [one.id]
    assert sagas.ids(SagaFilter(where={"customer": "c-18"})) == [one.id]
    assert [one.path for one in sagas.scanned(SagaFilter(where={"customer": "c-18", "note": ""}))] == ["note"]
    with pytest.raises(SearchRefused, match="no field of a state"):
        sagas.list(where={"customer'": "c-18"})
    engine.dispose()


@pytest.mark.parametrize("path", ["", ".", "a.", "a..b", "a b", '"', "'", "a[0]", "items.0", "$", "a" * 256])
async def test_a_path_that_no_state_can_have_is_refused_before_anything_is_asked(path: str) -> None:
    sagas = SagaClient(object())  # type: ignore[arg-type] # it is not used
    with pytest.raises(SearchRefused, match="is no field of a state"):
        sagas.list(where={path: "x"})


@pytest.mark.parametrize("value", ["a\0b", "\ud800", object(), b"\xff"])
async def test_a_value_that_no_state_can_have_is_refused(value: Any) -> None:
    with pytest.raises(SearchRefused, match="customer cannot be compared"):
        SagaClient(object()).list(where={"customer": value})  # type: ignore[arg-type] # it is not used


# -- marks that come later


async def test_what_was_started_before_a_mark_is_found_by_reading_until_it_is_reindexed(any_store: SqlStore) -> None:
    sagas, marked = SagaClient(any_store.engine), SagaFilter(saga="file", where={"customer": "c-17"})
    old, ended = await sagas.start(File, Plain()), await sagas.start(File, Plain())
    replica = Replica(any_store, File)
    await replica.settle()
    await replica.answer(ended.id, Filing)
    await sagas.start(File, Plain(customer="c-18"))
    new = await sagas.start(MarkedFile, Marked())

    [scan] = await sagas.scanned(marked)
    assert scan.notice().endswith("this reads every file. Run: saga reindex file")
    assert await sagas.ids(marked) == [old.id, ended.id, new.id]

    assert await reindexed(any_store, MarkedFile) == 0
    assert await sagas.scanned(marked) == []
    assert await sagas.ids(marked) == [old.id, ended.id, new.id]
    assert (await kept(any_store, old.id)) == {"customer": "c-17", "shelf": "a"}  # its state has no shelf: the default


async def test_reindexing_forgets_what_is_marked_no_more_and_leaves_other_versions_alone(any_store: SqlStore) -> None:
    sagas = SagaClient(any_store.engine)
    live = await sagas.start(MarkedFile, Marked())
    other = await sagas.start(FileAgain, OtherMark(note="x"))
    assert await reindexed(any_store, File) == 1
    assert [await kept(any_store, one.id) for one in (live, other)] == [{}, {"note": "x"}]


async def test_without_a_name_only_sagas_that_mark_the_field_are_meant(any_store: SqlStore) -> None:
    sagas = SagaClient(any_store.engine)
    plain = await sagas.start(File, Plain())
    assert await found(sagas, customer="c-17") == [plain.id]
    ship = await sagas.start(Ship, Order())
    assert await found(sagas, customer="c-17") == [ship.id]
    assert await sagas.ids(SagaFilter(saga="file", where={"customer": "c-17"})) == [plain.id]


async def test_the_query_of_the_page_about_sql_finds_the_same(any_store: SqlStore) -> None:
    page = (ROOT / "docs" / "sql.md").read_text(encoding="utf-8")
    [query] = re.findall(r"```sql\n([^`]*saga_search[^`]*)```", page)
    sagas = SagaClient(any_store.engine)
    started = [(await sagas.start(Ship, Order(customer=customer))).id for customer in ("c-17", "c-18", "c-17")]
    async with any_store.engine.connect() as connection:
        rows = (await connection.execute(text(query))).all()
    assert [str(row.saga_id) for row in rows] == [str(started[2]), str(started[0])]


# -- what it costs


async def test_starting_with_searchable_fields_is_one_statement_more(any_store: SqlStore) -> None:
    sent: list[str] = []
    async with AsyncSession(any_store.engine) as session:
        await session.connection()
        with every(any_store.engine.sync_engine, sent):
            await SagaClient(any_store.engine).start(Ship, Order(), key="42", session=session)
    assert len(sent) == (2 if any_store.engine.dialect.name == "postgresql" else 3)


def fill(connection: Connection, sagas: int) -> None:
    """Many sagas, all of one channel, each of another customer; c-17 is that of the first one."""
    ids = [UUID(int=number) for number in range(sagas)]
    saga = {"name": "ship", "version": 1, "fingerprint": "f", "status": "completed", "state": "{}", "revision": 1}
    rows = [{"id": one, **saga, "started_at": NOON, "updated_at": NOON} for one in ids]
    connection.execute(insert(saga_instance), rows)
    customers = [{"saga_id": one, "field": "customer", "value": f"c-{17 + at}"} for at, one in enumerate(ids)]
    channels = [{"saga_id": one, "field": "channel", "value": "web"} for one in ids]
    connection.execute(insert(saga_search), [*customers, *channels])
    connection.execute(text("ANALYZE"))


def explained(connection: Connection, statement: str, parameters: Any) -> str:
    """How the database answers a statement."""
    how = "EXPLAIN (ANALYZE, TIMING OFF)" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    rows = connection.exec_driver_sql(f"{how} {statement}", parameters)
    return "\n".join(str(row[-1]) for row in rows)


async def test_a_marked_field_is_searched_along_its_index_and_a_page_reads_no_more_than_it_shows(
    any_store: SqlStore,
) -> None:
    engine, asked = blocking(any_store), list[Any]()
    with engine.begin() as connection:
        fill(connection, 1000)
        plans: list[str] = []
        for rare_or_common in ({"customer": "c-17"}, {"channel": "web"}):
            with every(engine, asked):
                assert list_sagas(connection, SagaFilter(where=rare_or_common), limit=20)
            plans.append(explained(connection, *asked[-1]))
    engine.dispose()
    for plan in plans:
        if engine.dialect.name == "postgresql":
            assert "using ix_saga_search_found" in plan, plan
            assert max(int(rows) for rows in re.findall(r"actual rows=(\d+)", plan)) <= 21, plan
        else:  # a page of a common value reads the ids of all its sagas here, from the index alone
            assert "SEARCH saga_search USING COVERING INDEX ix_saga_search_found (field=? AND value=?)" in plan
            assert "SEARCH i USING INDEX" in plan


def blocking(store: SqlStore) -> Engine:
    """The same database, for threads."""
    drivers = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}
    return create_engine(make_url(store.engine.url).set(drivername=drivers[store.engine.dialect.name]))


async def reindexed(store: SqlStore, *versions: type[Saga[Any]]) -> int:
    """Write anew what sagas of one name are found by; how many were left alone."""
    async with store.engine.connect() as connection:
        ids = await connection.run_sync(some_of, versions[0].name, None, None)
    async with store.engine.begin() as connection:
        return await connection.run_sync(reindex, ids, {saga.version: saga for saga in versions}, None)
