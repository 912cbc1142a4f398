"""Several connections, processes and callers at one database: who waits, who passes by, who is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from messaging.envelope import Envelope, to_subscribers
from messaging.sql.tables import tables as messaging_tables
from messaging.transport import Outgoing
from orchestrator.errors import ConcurrentUpdate, EngineAlreadyRunning
from orchestrator.holding import Holds
from orchestrator.instance import SagaStatus
from orchestrator.signals import Decision
from orchestrator.sql import ConnectionSettings, SqlStore, start_saga, start_saga_async
from orchestrator.sql.cold import Cold
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.transaction import SqlTransaction
from orchestrator.store_records import NewSignal, ReceivedEvent, UnmatchedMessage
from tests.conformance.stores import (
    HOUR,
    NOON,
    PIN,
    PSYCOPG,
    SECOND,
    MovableClock,
    command,
    load,
    make_store,
    new_saga,
    opened,
    sqlite_url,
    started,
)
from tests.support.databases import new_sqlite

LONG_AGO = NOON.replace(year=2001)


@pytest.fixture(params=["postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, migrated_database: str) -> AsyncIterator[Any]:
    """Two transactions of it run on two connections."""
    async with opened(make_store(request.param, migrated_database, None)) as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, None)) as store:
        yield store


@pytest.fixture
def blocking_engine(any_store: SqlStore) -> Iterator[Engine]:
    """What a caller without coroutines has."""
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
    engine = create_engine(any_store.engine.url.set(drivername=drivers[any_store.engine.dialect.name]))
    yield engine
    engine.dispose()


async def waits_for_a_lock(store: SqlStore) -> None:
    """Return when some connection to this database waits for another's lock."""
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    while True:
        async with store.engine.connect() as connection:
            if (await connection.execute(waiting)).scalar_one():
                return


# -- PostgreSQL: real concurrency


async def test_fifty_concurrent_starts_with_one_key_make_one_saga(any_store: SqlStore) -> None:
    async def start() -> tuple[Any, bool]:
        async with any_store.transaction() as tx:
            return await tx.start(new_saga(business_key="42"))

    outcomes = await asyncio.gather(*(start() for _ in range(50)))
    assert [created for _, created in outcomes].count(True) == 1
    assert len({saga_id for saga_id, _ in outcomes}) == 1


async def test_a_release_waits_for_whoever_is_putting_off_and_makes_that_due(store: SqlStore) -> None:
    saga = await started(store, wake_at=LONG_AGO)
    async with store.transaction() as tx:
        await tx.hold(PIN.name, None, reason="it fails", by="ann")

    async def release() -> None:
        async with store.transaction() as tx:
            await tx.release(PIN.name, None, reason="mended", by="ann")
        async with store.transaction() as tx:
            await tx.wake_new(PIN.name, None)

    async with store.transaction() as tx:
        locked = await tx.lock_due([PIN], limit=10)
        assert (await Holds().passed(tx, locked)).sagas == {}
        releasing = asyncio.create_task(release())
        await waits_for_a_lock(store)
    await releasing

    async with store.transaction() as tx:
        assert set((await tx.lock_due([PIN], limit=10)).sagas) == {saga.id}


async def test_a_start_waits_for_an_uncommitted_one_with_its_key_and_gets_its_id(store: SqlStore) -> None:
    first, second = new_saga(business_key="42"), new_saga(business_key="42")

    async def start_second() -> Any:
        async with store.transaction() as tx:
            await tx.now()  # its snapshot must not matter
            return await tx.start(second)

    async with store.transaction() as tx:
        await tx.start(first)
        waiting = asyncio.create_task(start_second())
        await waits_for_a_lock(store)
    assert await waiting == (first.id, False)


async def test_a_start_that_waited_for_one_that_was_rolled_back_starts_itself(store: SqlStore) -> None:
    second = new_saga(business_key="42")

    async def start_second() -> Any:
        async with store.transaction() as tx:
            return await tx.start(second)

    async def first_fails() -> asyncio.Task[Any]:
        async with store.transaction() as tx:
            await tx.start(new_saga(business_key="42"))
            waiting.append(asyncio.create_task(start_second()))
            await waits_for_a_lock(store)
            raise ZeroDivisionError

    waiting: list[asyncio.Task[Any]] = []
    with pytest.raises(ZeroDivisionError):
        await first_fails()
    assert await waiting[0] == (second.id, True)


async def test_twenty_concurrent_reuses_of_a_key_make_one_saga(any_store: SqlStore) -> None:
    first = await started(any_store, business_key="42")
    async with any_store.transaction() as tx:
        (saga,) = (await tx.lock([first.id])).sagas.values()
        await tx.save([Decision(_ended(saga))])

    async def start() -> tuple[Any, bool]:
        async with any_store.transaction() as tx:
            return await tx.start(new_saga(business_key="42"), reuse_key_after_end=True)

    outcomes = await asyncio.gather(*(start() for _ in range(20)))
    assert [created for _, created in outcomes].count(True) == 1
    assert len({saga_id for saga_id, _ in outcomes}) == 1


def _ended(saga: Any) -> Any:
    return replace(saga, status=SagaStatus.COMPLETED, wake_at=None, ended_at=NOON)


async def test_a_lock_waits_for_the_other_transaction_and_loads_what_it_wrote(store: SqlStore) -> None:
    saga = await started(store)

    async def load_again() -> Any:
        return await load(store, saga.id)

    async with store.transaction() as tx:
        (loaded,) = (await tx.lock([saga.id])).sagas.values()
        waiting = asyncio.create_task(load_again())
        await waits_for_a_lock(store)
        await tx.save([Decision(replace(loaded, state="newer"))])
    assert (await waiting).state == "newer"


async def test_batches_that_lock_the_same_sagas_in_any_order_never_wait_in_a_circle(store: SqlStore) -> None:
    ids = [(await started(store)).id for _ in range(10)]

    async def batch(order: list[Any]) -> None:
        async with store.transaction() as tx:
            locked = await tx.lock(order)
            await tx.save([Decision(saga) for saga in reversed(locked.sagas.values())])

    await asyncio.gather(*(batch(ids if number % 2 else ids[::-1]) for number in range(20)))
    assert (await load(store, ids[0])).revision == 21


async def test_scans_pass_over_what_another_transaction_has_locked(store: SqlStore) -> None:
    held = await started(store, command("One", send_after=LONG_AGO), wake_at=LONG_AGO)
    free = await started(store, command("Two", send_after=LONG_AGO), wake_at=LONG_AGO)
    async with store.transaction() as tx:
        await tx.add_signals([NewSignal(saga.id, "cancel", "{}") for saga in (held, free)])
    async with store.transaction() as tx, store.transaction() as other:
        await tx.lock([held.id])
        assert set((await other.lock_due([PIN], limit=10)).sagas) == {free.id}
        assert set((await other.lock_signalled([PIN], limit=10)).sagas) == {free.id}
    async with store.transaction() as tx, store.transaction() as other:
        first = await tx.claim_unsent(limit=1, grace=HOUR)
        second = await other.claim_unsent(limit=10, grace=HOUR)
        assert len(first) == len(second) == 1
        assert first[0].saga_id != second[0].saga_id


async def test_marks_and_put_offs_pass_over_rows_held_by_others(store: SqlStore) -> None:
    saga = await started(store, command(send_after=LONG_AGO))
    (record,) = saga.steps.values()
    assert record.command_id is not None
    async with store.transaction() as tx, store.transaction() as other:
        await tx.claim_unsent(limit=1, grace=HOUR)
        await other.mark_sent([record.command_id])
        await other.put_off_sends({record.command_id: (NOON, "away")})
    (after,) = (await load(store, saga.id)).steps.values()
    assert after.sent_at is None
    assert after.send_attempts == 1


async def test_signals_events_and_keys_are_inserted_while_the_saga_is_locked(store: SqlStore) -> None:
    saga = await started(store, command())
    async with store.transaction() as tx, store.transaction() as other:
        await tx.lock([saga.id])
        await other.add_signals([NewSignal(saga.id, "cancel", "{}")])
        await other.add_events([ReceivedEvent("m", "e", "k", "{}", HOUR)])
        await other.add_unmatched([UnmatchedMessage("m", "why", b"", "{}", saga.id)])
        await other.start(new_saga(business_key="43"))
        (record,) = saga.steps.values()
        assert record.command_id is not None
        await other.mark_sent([record.command_id])


async def test_a_write_by_somebody_without_the_lock_is_found_out_by_the_revision(any_store: SqlStore) -> None:
    saga = await started(any_store)

    async def overtaken() -> None:
        async with any_store.transaction() as tx:
            await tx.lock([saga.id])
            bump = "UPDATE saga_instance SET revision = revision + 1"
            await tx.connection.execute(text(bump))
            await tx.save([Decision(saga)])

    with pytest.raises(ConcurrentUpdate):
        await overtaken()
    assert await load(any_store, saga.id) == saga


async def test_the_instant_is_read_after_the_lock_was_waited_for(store: SqlStore) -> None:
    saga, other_saga = await started(store, command()), await started(store)

    async def lock_both() -> Any:
        async with store.transaction() as tx:
            before = await tx.now()
            return before, await tx.lock([saga.id, other_saga.id]), await tx.now()

    async with store.transaction() as tx:
        await tx.lock([saga.id])
        waiting = asyncio.create_task(lock_both())
        await waits_for_a_lock(store)
        while_held = (await tx.connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    before, locked, after = await waiting
    assert before < while_held < locked.now == after


# -- starting in a caller's transaction


def test_a_start_goes_with_the_callers_blocking_transaction(blocking_engine: Engine) -> None:
    first, second = new_saga(business_key="42"), new_saga(business_key="42")
    with Session(blocking_engine) as session:
        assert start_saga(session, first) == (first.id, True)
        session.rollback()
        assert start_saga(session, second) == (second.id, True)
        session.commit()
        assert start_saga(session, first) == (second.id, False)
        assert session.execute(text("SELECT count(*) FROM saga_instance")).scalar_one() == 1
    with blocking_engine.begin() as connection:
        assert start_saga(connection, first) == (second.id, False)


async def test_a_start_goes_with_the_callers_asynchronous_transaction(any_store: SqlStore) -> None:
    first, second = new_saga(business_key="42"), new_saga(business_key="42")
    sessions = async_sessionmaker(any_store.engine)
    async with sessions() as session:
        assert await start_saga_async(session, first) == (first.id, True)
        await session.rollback()
        assert await start_saga_async(session, second) == (second.id, True)
        await session.commit()
    async with any_store.engine.begin() as connection:
        assert await start_saga_async(connection, first) == (second.id, False)


async def test_starting_is_one_statement_on_postgresql_and_two_on_sqlite(any_store: SqlStore) -> None:
    sent: list[str] = []

    def note(*args: Any) -> None:
        sent.append(args[2])

    async with AsyncSession(any_store.engine) as session:
        await session.connection()
        event.listen(any_store.engine.sync_engine, "before_cursor_execute", note)
        await start_saga_async(session, new_saga(business_key="42"))
        event.remove(any_store.engine.sync_engine, "before_cursor_execute", note)
    assert len(sent) == (1 if any_store.engine.dialect.name == "postgresql" else 2)


async def test_a_saga_without_a_key_writes_none(any_store: SqlStore) -> None:
    await started(any_store)
    async with any_store.engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM saga_key"))).scalar_one() == 0


async def test_in_a_schema_everything_is_found_there(postgres_database: str) -> None:
    upgrade(postgres_database, schema="my sagas")
    async with opened(SqlStore(postgres_database, schema="my sagas", clock=MovableClock())) as store:
        saga = await started(store, command(), business_key="42")
        async with store.transaction() as tx:
            assert set((await tx.lock_due([PIN], limit=1)).sagas) == {saga.id}
            await tx.add_signals([NewSignal(saga.id, "cancel", "{}")])
            assert len(await tx.claim_unsent(limit=1, grace=SECOND)) == 1
            assert await tx.start(new_saga(business_key="42")) == (saga.id, False)


async def test_behind_a_pooler_timeouts_hold_within_each_transaction(migrated_database: str) -> None:
    settings = ConnectionSettings(external_pooler=True, lock_timeout=SECOND * 7)
    async with opened(SqlStore(migrated_database, settings=settings)) as store:
        async with store.transaction() as tx:
            assert (await tx.connection.execute(text("SHOW lock_timeout"))).scalar_one() == "7s"
        async with store.engine.connect() as connection:
            assert (await connection.execute(text("SHOW lock_timeout"))).scalar_one() == "0"


# -- faults


async def test_a_lock_held_too_long_is_a_transient_fault(migrated_database: str) -> None:
    async with opened(SqlStore(migrated_database, settings=ConnectionSettings(lock_timeout=SECOND / 100))) as store:
        saga = await started(store)
        async with store.transaction() as tx:
            await tx.lock([saga.id])
            with pytest.raises(DBAPIError) as caught:
                await load(store, saga.id)
    assert store.is_transient(caught.value)


async def test_a_connection_that_the_server_ends_is_a_transient_fault_and_the_next_works(store: SqlStore) -> None:
    async def ended() -> None:
        async with store.transaction() as tx:
            pid = (await tx.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
            async with store.transaction() as other:
                await other.connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            await tx.now()

    with pytest.raises(DBAPIError) as caught:
        await ended()
    assert store.is_transient(caught.value)
    await started(store)


async def test_the_connection_of_a_statement_that_was_cancelled_is_not_used_again(store: SqlStore) -> None:
    saga, used = await started(store), set[int]()

    async def backend(tx: SqlTransaction) -> int:
        return int((await tx.connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())

    async def locking() -> None:
        async with store.transaction() as tx:
            used.add(await backend(tx))
            await tx.lock([saga.id])

    async with store.transaction() as tx:
        await tx.lock([saga.id])
        waiting = asyncio.create_task(locking())
        await waits_for_a_lock(store)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        async with store.transaction() as one, store.transaction() as other:
            assert used.isdisjoint({await backend(one), await backend(other)})
    assert (await load(store, saga.id)).id == saga.id


async def test_a_server_that_is_away_is_a_transient_fault() -> None:
    for driver in ("asyncpg", "psycopg"):
        store = SqlStore(f"postgresql+{driver}://nobody@127.0.0.1:1/none")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - which class is the driver's business
            await store.open()
        assert store.is_transient(caught.value), driver


async def test_a_row_that_breaks_a_rule_is_not_transient(any_store: SqlStore) -> None:
    with pytest.raises(IntegrityError) as caught:
        await started(any_store, wake_at=None, state="the secret of the saga")
    assert not any_store.is_transient(caught.value)
    assert "the secret of the saga" not in str(caught.value).split("DETAIL")[0]


# -- SQLite: one file


async def test_a_second_engine_on_a_file_is_refused_until_the_first_has_gone(tmp_path: Path) -> None:
    new_sqlite(sqlite_url(tmp_path))
    first, second = SqlStore(sqlite_url(tmp_path)), SqlStore(sqlite_url(tmp_path))
    reader = SqlStore(sqlite_url(tmp_path), runs_engine=False)
    await first.open()
    with pytest.raises(EngineAlreadyRunning, match=str(tmp_path / "sagas.db")):
        await second.open()
    async with opened(reader):
        pass
    await first.close()
    async with opened(second):
        pass


async def test_the_lock_of_a_file_goes_with_its_process(tmp_path: Path) -> None:
    new_sqlite(sqlite_url(tmp_path))
    holder = (
        "import asyncio, sys\nfrom orchestrator.sql import SqlStore\n"
        f"store = SqlStore({sqlite_url(tmp_path)!r})\nasyncio.run(store.open())\n"
        "print('open', flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen(  # noqa: ASYNC220 - the test has nothing else to do
        [sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    store = SqlStore(sqlite_url(tmp_path))
    with pytest.raises(EngineAlreadyRunning):
        await store.open()
    process.kill()
    process.communicate()
    async with opened(store):
        pass


async def test_two_processes_lose_no_update_of_one_file(tmp_path: Path) -> None:
    new_sqlite(sqlite_url(tmp_path))
    first, second = (SqlStore(sqlite_url(tmp_path), runs_engine=False) for _ in range(2))
    saga = await started(first)

    async def raise_it(store: SqlStore, times: int) -> None:
        for _ in range(times):
            async with store.transaction() as tx:
                await tx.save([Decision(one) for one in (await tx.lock([saga.id])).sagas.values()])

    await asyncio.gather(raise_it(first, 40), raise_it(second, 40))
    assert (await load(first, saga.id)).revision == saga.revision + 80
    await first.close()
    await second.close()


async def test_a_file_is_durable_and_reads_well(tmp_path: Path) -> None:
    new_sqlite(sqlite_url(tmp_path))
    async with opened(SqlStore(sqlite_url(tmp_path), clock=MovableClock())) as store:
        saga = await started(store, command())
        async with store.engine.connect() as connection:
            pragmas = [
                (await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys")
            ]
            row = (await connection.exec_driver_sql("SELECT id, started_at FROM saga_instance")).one()
    assert pragmas == ["wal", 2, 1]
    assert tuple(row) == (str(saga.id), "2031-02-03 12:00:00.000789")


async def test_unmatched_messages_are_bounded_and_the_oldest_go(any_store: SqlStore) -> None:
    cold = Cold(unmatched_kept=3)
    for number in range(5):
        message = UnmatchedMessage(str(number), "why", b"\xff", "{}")
        async with any_store.engine.begin() as connection:
            await connection.run_sync(cold.add_unmatched, [message], NOON)
    async with any_store.engine.connect() as connection:
        kept = (await connection.execute(text("SELECT message_id FROM saga_unmatched ORDER BY id"))).scalars().all()
    assert kept == ["2", "3", "4"]


async def test_outgoing_messages_are_in_the_outbox_of_the_bus(any_store: SqlStore) -> None:
    async with any_store.transaction() as tx:
        await tx.add_outgoing([Outgoing(Envelope("m1", b"{}", "order-placed"), to_subscribers("order-placed"))])
    async with any_store.engine.connect() as connection:
        outbox = messaging_tables().outbox
        rows = (await connection.execute(outbox.select())).all()
    assert [(row.message_id, row.routing_key) for row in rows] == [("m1", "order-placed")]


def test_only_databases_we_keep_sagas_in_are_accepted() -> None:
    with pytest.raises(ValueError, match="PostgreSQL or SQLite, not in 'mysql'"):
        SqlStore(make_url("mysql://u:secret@h/d"))


async def test_connections_that_died_in_the_pool_are_replaced_before_they_are_used(store: SqlStore) -> None:
    resting = SqlStore(store.engine.url, settings=ConnectionSettings(trusted_for=timedelta(0)))
    async with opened(resting):
        async with resting.transaction() as first, resting.transaction() as second:
            pids = [await first.connection.scalar(text("SELECT pg_backend_pid()")) for first in (first, second)]
        async with store.engine.connect() as connection:
            await connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM unnest(CAST(:p AS int[])) p(pid)"), {"p": pids}
            )

        async with resting.transaction() as tx:
            assert await tx.connection.scalar(text("SELECT pg_backend_pid()")) not in pids


async def test_a_connection_that_died_just_now_is_a_transient_fault(store: SqlStore) -> None:
    trusting = SqlStore(store.engine.url, settings=ConnectionSettings(trusted_for=timedelta(hours=1)))
    async with opened(trusting):
        async with trusting.transaction() as tx:
            pid = await tx.connection.scalar(text("SELECT pg_backend_pid()"))
        async with store.engine.connect() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})

        with pytest.raises(DBAPIError) as lost:
            async with trusting.transaction() as tx:
                await tx.now()
        assert trusting.is_transient(lost.value)
        async with trusting.transaction() as tx:
            await tx.now()
