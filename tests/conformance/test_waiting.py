"""What waits between database and broker is told by destination, with sagas to look at, and read in bounds."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import pytest
from sqlalchemy import Connection, text, update

from messaging.compose import compose_event
from messaging.envelope import Envelope, to_queue, to_subscribers
from messaging.messages import Event
from messaging.sql.tables import tables
from messaging.transport import Outgoing
from orchestrator.backlog import UnsentCommands
from orchestrator.instance import SagaInstance
from orchestrator.outgoing import event_message
from orchestrator.signals import LocksAsked
from orchestrator.sql import waiting
from orchestrator.sql.planning import in_order_of_index
from orchestrator.sql.store import SqlStore
from orchestrator.sql.waiting import (
    lock_queues,
    newest_unmatched,
    outbox_messages,
    outbox_statement,
    unsent_with_sagas,
    unsent_with_sagas_statement,
    waiting_for_locks_statement,
)
from orchestrator.store_records import UnmatchedMessage
from orchestrator.waiting import LockQueue
from tests.conformance.stores import (
    HOUR,
    NOON,
    PSYCOPG,
    SECOND,
    MovableClock,
    command,
    make_store,
    opened,
    sqlite_url,
    started,
)

MINUTE = timedelta(minutes=1)
T = TypeVar("T")


class Paid(Event): ...


@pytest.fixture(params=["sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


async def read(store: SqlStore, ask: Callable[[Connection], T]) -> T:
    async with store.engine.connect() as connection:
        return await connection.run_sync(ask)


async def commands(store: SqlStore, now: Any = NOON + SECOND, limit: int = 50) -> Any:
    return await read(store, lambda c: unsent_with_sagas(c, now, None, limit=limit))


async def test_unsent_commands_are_those_of_the_alarm_with_the_oldest_sagas_of_each_participant(
    store: SqlStore,
) -> None:
    assert await commands(store) == []
    ages = [3, 1, 4, 2, 5]
    begun = [command(started_at=NOON - age * MINUTE, send_after=NOON - age * SECOND) for age in ages]
    ids = {age: (await started(store, record)).id for age, record in zip(ages, begun, strict=True)}
    refused = command("Paying", participant="banks")
    payer = await started(store, refused)
    await started(store, command(participant="paused"), wake_at=None, paused_at=NOON)
    await started(store, command(participant="backing-off", send_after=NOON + HOUR))
    async with store.transaction() as tx:
        assert refused.command_id is not None
        await tx.put_off_sends({refused.command_id: (NOON + HOUR, "no queue 'banks'")})

    found = await commands(store)

    async with store.transaction() as tx:
        of_the_alarm = await tx.unsent_commands(before=NOON + SECOND)
    without_sagas = [UnsentCommands(one.participant, one.commands, one.since, one.error) for one in found]
    assert sorted(without_sagas, key=lambda one: one.participant) == of_the_alarm
    to_customers, to_banks = found
    assert (to_customers.participant, to_customers.commands, to_customers.error) == ("customers", 5, "")
    assert to_customers.since == NOON - 5 * MINUTE
    assert to_customers.sagas == (ids[5], ids[4], ids[3])
    assert (to_banks.error, to_banks.sagas) == ("no queue 'banks'", (payer.id,))
    assert await commands(store, limit=1) == [to_customers]


async def test_of_very_many_commands_those_that_are_due_first_are_counted(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_READ", 2)
    for seconds in (1, 3, 2):
        await started(store, command(participant=f"due-{seconds}", send_after=NOON - seconds * SECOND))

    assert [one.participant for one in await commands(store)] == ["due-2", "due-3"]


async def test_the_outbox_is_told_by_destination_with_a_saga_that_published(store: SqlStore) -> None:
    assert await read(store, lambda c: outbox_messages(c, None, limit=50)) == []
    saga = await started(store)
    strange = Envelope("m-1", b"{}", "paid", correlation_id="no saga's id", app_id="sagasmith")
    async with store.transaction() as tx:
        await tx.add_outgoing([event_message(Paid(), saga), Outgoing(strange, to_subscribers("refunded"))])
        await tx.add_outgoing([Outgoing(compose_event(Paid()), to_subscribers("paid"))])
        await tx.add_outgoing([Outgoing(strange, to_queue("banks"))] * 3)
    outbox = tables(None).outbox
    refused = {"send_attempts": 2, "last_error": "no such queue", "created_at": NOON}
    async with store.engine.begin() as connection:
        await connection.execute(update(outbox).where(outbox.c.routing_key == "banks").values(refused))

    banks, paid, refunded = await read(store, lambda c: outbox_messages(c, None, limit=50))

    assert (banks.exchange, banks.routing_key, banks.messages, banks.saga) == ("", "banks", 3, None)
    assert (banks.since, banks.tried, banks.error) == (NOON, 3, "no such queue")
    assert (paid.exchange, paid.routing_key, paid.messages, paid.saga) == ("events", "paid", 2, saga.id)
    assert (paid.tried, paid.error, refunded.saga) == (0, "", None)
    assert await read(store, lambda c: outbox_messages(c, None, limit=1)) == [banks]


async def test_what_fits_no_saga_is_told_the_newest_first(store: SqlStore) -> None:
    saga = await started(store)
    some = [UnmatchedMessage(f"m-{number}", "of nothing we sent", b"secret", "{}") for number in range(3)]
    async with store.transaction() as tx:
        await tx.add_unmatched([*some, replace(some[0], message_id="late", reason="it has ended", saga_id=saga.id)])

    late, before = await read(store, lambda c: newest_unmatched(c, None, limit=2))

    assert (late.message_id, late.reason, late.saga_id, late.arrived_at) == ("late", "it has ended", saga.id, NOON)
    assert (before.message_id, before.saga_id) == ("m-2", None)


async def test_resources_that_sagas_wait_for_are_told_with_who_holds_them(store: SqlStore) -> None:
    assert await read(store, lambda c: lock_queues(c, None, limit=50)) == []
    holder, *waiters = [await started(store) for _ in range(6)]
    await asks(store, holder, "account:a", "account:free")
    async with store.transaction() as tx:
        held = [row.id for row in await tx.contended_locks()]
        await tx.settle_locks(held, [])
    for saga in waiters:
        await asks(store, saga, "account:a")
    await asks(store, waiters[0], "account:nobody's")

    first, second = await read(store, lambda c: lock_queues(c, None, limit=50))

    ids = tuple(saga.id for saga in waiters[:3])
    assert first == LockQueue("account:a", 5, NOON, ids, holder.id, "Debiting", NOON)
    assert second == LockQueue("account:nobody's", 1, NOON, ids[:1], None, None, None)
    assert await read(store, lambda c: lock_queues(c, None, limit=1)) == [first]


async def asks(store: SqlStore, saga: SagaInstance, *resources: str) -> UUID:
    async with store.transaction() as tx:
        locked = (await tx.lock([saga.id])).sagas[saga.id]
        await tx.change_locks(locked, [LocksAsked("Debiting", resources, waits=True)])
    return saga.id


_FILLED = """
    INSERT INTO saga_instance (id, name, version, fingerprint, status, state, revision, wake_at, started_at, updated_at,
                               ended_at)
    SELECT md5('saga' || n)::uuid, 'create-order', 1, 'f1', CASE WHEN n % 2 = 0 THEN 'running' ELSE 'completed' END,
           '{}', 1, CASE WHEN n % 2 = 0 THEN now() END, now(), now(), CASE WHEN n % 2 = 1 THEN now() END
    FROM generate_series(1, 20000) n;
    INSERT INTO saga_step (saga_id, step, direction, branch, seq, status, round, attempt, tries, unanswered,
                           participant, send_after, started_at, updated_at)
    SELECT id, 'Booking', 'action', '', 1, 'outstanding', 1, 1, 1, 0, 'customers',
           CASE WHEN status = 'running' THEN now() - random() * interval '1 hour' END, now(), now() FROM saga_instance;
    INSERT INTO message_outbox (id, created_at, send_after, exchange, exchange_kind, routing_key, mandatory, absolute,
                                message_id, type, correlation_id, reply_to, content_type, app_id, headers, body)
    SELECT md5('m' || n)::uuid, now(), now(), 'events', 'topic', 'paid', false, false, n, 'paid', '', '', '', '', '', ''
    FROM generate_series(1, 20000) n;
    INSERT INTO saga_lock (id, resource, root_id, saga_id, step, waits, asked_at, held_since)
    SELECT id, id::text, id, id, 'Booking', true, now(), CASE WHEN status <> 'running' THEN now() END
    FROM saga_instance;
    ANALYZE saga_instance, saga_step, message_outbox, saga_lock
"""


async def test_however_much_waits_it_is_read_along_an_index_and_no_further_than_is_counted(
    store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "MOST_READ", 8000)
    along = {
        ("ix_saga_step_unsent", "ix_saga_step_unsent"): unsent_with_sagas_statement(NOON + 10_000 * HOUR, None),
        ("message_outbox_pkey", "sqlite_autoindex_message_outbox_1"): outbox_statement(None),
        ("ix_saga_lock_asked", "ix_saga_lock_asked"): waiting_for_locks_statement(None),
    }
    async with store.engine.connect() as connection:
        on_postgresql = connection.dialect.name == "postgresql"
        for statement in _FILLED.split(";") if on_postgresql else ():
            await connection.execute(text(statement.replace(":uuid", r"\:uuid").replace("::text", r"\:\:text")))
        for (ours, sqlites), statement in along.items():
            plan = await connection.run_sync(lambda c, asked=statement: planned(c, asked))  # type: ignore[misc]
            assert (ours if on_postgresql else sqlites) in plan
            assert "Seq Scan" not in plan
            assert "SCAN saga_instance" not in plan
            assert not re.search("Sort Key: (saga_step.send_after|message_outbox.id|saga_lock.resource)", plan)


def planned(connection: Connection, statement: Any) -> str:
    asked = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
    explain = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
    with in_order_of_index(connection):
        return "\n".join(row[-1] for row in connection.exec_driver_sql(f"{explain} {asked}"))
