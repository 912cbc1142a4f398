"""Sagas read without a lock and written if nobody has changed them since, on each store that offers it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, text

from orchestrator.at_hand import AtHand
from orchestrator.instance import ITEMS, SagaInstance, SagaStatus, StepStatus
from orchestrator.roster import Roster
from orchestrator.signals import Decision, Note, Replaced
from orchestrator.sql import ConnectionSettings, SqlStore, unlocked
from orchestrator.sql.hot import named
from orchestrator.sql.rows import INSTANCE_COLUMNS
from orchestrator.sql.statements import Statement
from orchestrator.store_records import CommandRef
from tests.conformance.stores import NOON, SECOND, MovableClock, adding, changing, command, load, make_store, opened
from tests.conformance.stores import started as stored

ON_POSTGRESQL = pytest.mark.parametrize("store", ["postgresql", "psycopg"], indirect=True)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "postgresql", "psycopg"])
async def store(request: pytest.FixtureRequest, clock: MovableClock) -> AsyncIterator[Any]:
    where = "" if request.param == "memory" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield store


def the_command(saga: SagaInstance) -> Any:
    (record,) = saga.steps.values()
    return record.command_id


async def test_attempts_and_their_sagas_are_read_as_with_a_lock(store: Any) -> None:
    one, two = await stored(store, command()), await stored(store, command())
    (record,) = one.steps.values()
    second = replace(record, attempt=2, command_id=uuid4())
    old = Replaced(the_command(one), record.key, 1, 1)
    assert await store.write([replace(changing(one, second), replaced=(old,))], NOON)
    asked = [the_command(one), second.command_id, the_command(two), uuid4()]

    refs, found = await store.read_commands(asked)

    async with store.transaction() as tx:
        locked_refs, locked = await tx.lock_commands(asked)
    assert (refs, found) == (locked_refs, locked)
    assert refs[the_command(one)] == CommandRef(one.id, record.key, 1, 1)


async def test_what_was_decided_on_a_saga_as_it_is_is_written_whole(store: Any, clock: MovableClock) -> None:
    saga = await stored(store, command())
    _, found = await store.read_commands([the_command(saga)])
    decision = adding(found.sagas[saga.id], command("Next", seq=2))
    clock.move(SECOND)

    assert await store.write([replace(decision, notes=(Note("retried", "Next", "once more"),))], found.now)

    saved = await load(store, saga.id)
    assert saved.revision == saga.revision + 1
    assert {key.step for key in saved.steps} == {*(key.step for key in saga.steps), "Next"}


async def test_nothing_of_a_batch_is_written_if_one_of_its_sagas_was_changed_since(store: Any) -> None:
    one, two = await stored(store, command()), await stored(store, command())
    _, found = await store.read_commands([the_command(one), the_command(two)])
    assert await store.write([Decision(two)], NOON)

    decisions = [adding(found.sagas[saga.id], command("Next", seq=2)) for saga in (one, two)]
    assert not await store.write(decisions, found.now)

    assert (await load(store, one.id)).revision == one.revision
    assert {k.step for saga in (one, two) for k in (await load(store, saga.id)).steps} == {k.step for k in one.steps}


async def test_what_was_decided_while_a_command_of_the_saga_was_claimed_is_not_written(
    store: Any, clock: MovableClock
) -> None:
    saga = await stored(store, command(send_after=NOON))
    _, found = await store.read_commands([the_command(saga)])
    clock.move(SECOND)
    async with store.transaction() as tx:
        (claimed,) = await tx.claim_unsent(limit=10, grace=SECOND)

    assert claimed.saga_id == saga.id
    assert not await store.write([adding(found.sagas[saga.id], command("Next", seq=2))], found.now)


async def test_what_a_transaction_is_about_to_change_is_not_written_over(store: Any) -> None:
    saga = await stored(store, command())
    _, found = await store.read_commands([the_command(saga)])
    async with store.transaction() as tx:
        locked = await tx.lock([saga.id])
        writing = asyncio.create_task(store.write([adding(found.sagas[saga.id], command("Next", seq=2))], NOON))
        await asyncio.sleep(0)
        await tx.save([Decision(replace(locked.sagas[saga.id], current_step="Elsewhere"))])

    assert not await writing
    assert (await load(store, saga.id)).current_step == "Elsewhere"


@ON_POSTGRESQL
async def test_batches_that_meet_in_any_order_never_wait_for_each_other_in_a_circle(store: Any) -> None:
    sagas = [await stored(store, command()) for _ in range(60)]
    others = ", ".join(column for column in INSTANCE_COLUMNS if column != "id")
    async with store.engine.begin() as connection:  # among many: on a small table any order is that of the index
        more = f"SELECT gen_random_uuid(), {others} FROM saga_instance, generate_series(1, 50)"
        await connection.exec_driver_sql(f"INSERT INTO saga_instance (id, {others}) {more}")
        await connection.exec_driver_sql("ANALYZE saga_instance")
    processes = [SqlStore(store.engine.url) for _ in range(4)]  # each finds rows in the order of its batch

    async def one_of_many(process: SqlStore, turn: int) -> bool:
        turned = sagas[turn:] + sagas[:turn]
        read = await process.read_commands([the_command(saga) for saga in turned])
        assert read is not None
        found = [read[1].sagas[saga.id] for saga in (turned if turn % 2 else reversed(turned))]
        return await process.write([changing(saga, *saga.steps.values()) for saga in found], NOON)

    for _ in range(30):
        written = await asyncio.gather(*(one_of_many(process, turn * 7) for turn, process in enumerate(processes)))
        assert any(written)
    for process in processes:
        await process.close()


@ON_POSTGRESQL
async def test_a_saga_that_stands_in_a_for_each_is_left_to_a_transaction(store: Any) -> None:
    roster = Roster(("Inner",), 3, 1, 2, ("a",))
    group = command("Group", wire_name=ITEMS, memo=roster.memo, command_id=None, send_after=None)
    saga = await stored(store, command(), group)
    (one,) = [record.command_id for record in saga.steps.values() if record.command_id]

    refs, found = await store.read_commands([one])

    assert refs[one].saga_id == saga.id
    assert not found.sagas


@ON_POSTGRESQL
async def test_a_lost_connection_is_replaced_by_the_next_statement(store: Any) -> None:
    saga = await stored(store, command())
    assert await store.read_commands([the_command(saga)])
    kept = vars(vars(store)["_unlocked"])["_connection"]
    (pid,) = (await kept.exec_driver_sql("SELECT pg_backend_pid()")).one()
    async with store.engine.connect() as other:
        await other.exec_driver_sql(f"SELECT pg_terminate_backend({pid})")

    with pytest.raises(Exception) as lost:  # noqa: PT011 - each driver has its own
        await store.read_commands([the_command(saga)])
    assert store.is_transient(lost.value)

    assert await store.read_commands([the_command(saga)])


@pytest.mark.parametrize("kind", ["sqlite", "behind a pooler"])
async def test_where_nothing_is_read_without_a_transaction_what_is_at_hand_is_written_all_the_same(
    request: pytest.FixtureRequest, tmp_path: Any, clock: MovableClock, kind: str
) -> None:
    if kind == "sqlite":
        made = make_store("sqlite", f"sqlite:///{tmp_path / 'sagas.db'}", clock)
    else:
        pooled = ConnectionSettings(external_pooler=True)
        made = SqlStore(request.getfixturevalue("migrated_database"), settings=pooled, clock=clock)
    async with opened(made) as store:
        one, two = await stored(store, command()), await stored(store, command())
        assert await store.read_commands([the_command(one)]) is None
        assert await store.write([adding(saga, command("Next", seq=2)) for saga in (one, two)], NOON)
        written = await load(store, one.id)
        assert {key.step for key in written.steps} == {*(key.step for key in one.steps), "Next"}

        third = command("Third", seq=3)
        current, outdated = await load(store, two.id), one
        assert not await store.write([adding(current, third), adding(outdated, third)], NOON)
        assert await load(store, two.id) == current


@ON_POSTGRESQL
async def test_a_plan_made_while_tables_are_small_reads_none_of_them_whole_later(store: Any) -> None:
    process = SqlStore(store.engine.url)
    read = Statement(named(None, vars(unlocked)["_READ"]), process.engine.dialect)
    explained = Statement(f"EXPLAIN {named(None, vars(unlocked)['_READ'])}", process.engine.dialect)

    def plan(connection: Connection) -> str:
        read.rows(connection, {"ids": [uuid4()]})
        return "\n".join(row[0] for row in explained.rows(connection, {"ids": [uuid4()] * 50}))

    async with process.engine.connect() as connection:
        told = await connection.run_sync(plan)
    await process.close()

    assert "Seq Scan" not in told and "Hash Join" not in told and "pk_saga_step" in told


async def test_the_statements_of_a_local_step_are_planned_as_on_any_connection(migrated_database: str) -> None:
    async with opened(SqlStore(migrated_database)) as store, store.transaction() as tx:
        assert (await tx.connection.exec_driver_sql("SHOW enable_hashjoin")).scalar_one() == "off"
        async with tx.session(timeout=SECOND * 30) as session:
            assert (await session.execute(text("SHOW enable_hashjoin"))).scalar_one() == "on"


@ON_POSTGRESQL
async def test_sagas_at_hand_are_what_the_database_has_and_cost_no_read_until_somebody_changes_them(
    store: Any, clock: MovableClock
) -> None:
    sagas = AtHand(store, 1_000_000, clock)
    before = await stored(store, command())
    _, found = await store.read_commands([the_command(before)])
    undone = replace(command("Next", seq=2), command_id=uuid4(), send_attempts=1)
    (first,) = found.sagas[before.id].steps.values()
    first = replace(first, status=StepStatus.SUCCEEDED, send_after=None, sent_at=NOON, reply="{}", ended_at=NOON)
    decision = adding(changing(found.sagas[before.id], first).instance, undone)
    decision = replace(decision, changed=(first.key,))
    assert await store.write([decision], NOON)
    sagas.keep([decision])

    assert await sagas.read_commands([undone.command_id]) == await store.read_commands([undone.command_id])

    async with store.transaction() as tx:
        locked = (await tx.lock([before.id])).sagas[before.id]
        await tx.save([changing(locked, status=SagaStatus.COMPENSATING)])
    refs, at_hand = await sagas.read_commands([undone.command_id])
    assert at_hand.sagas[before.id].status is SagaStatus.RUNNING  # out of date, and so nothing is written
    assert not await store.write([adding(at_hand.sagas[before.id], command("Third", seq=3))], NOON)
    assert sagas.forget(refs)
    assert await sagas.read_commands([undone.command_id]) == await store.read_commands([undone.command_id])


async def test_what_was_decided_on_a_change_that_the_database_has_lost_is_not_written(store: Any) -> None:
    """After a restore it comes to the same revision again, by other changes."""
    saga = await stored(store, command())
    _, found = await store.read_commands([the_command(saga)])
    lost = replace(found.sagas[saga.id], updated_at=NOON + SECOND)

    decided = replace(adding(lost, command("Next", seq=2)), made_on=lost.updated_at)

    assert not await store.write([decided], NOON)
    assert await load(store, saga.id) == saga
