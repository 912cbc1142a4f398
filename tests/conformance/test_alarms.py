"""What alarms are raised about is found by every store alike: groups, never single sagas."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text, update

from messaging.compose import compose_event
from messaging.envelope import to_subscribers
from messaging.messages import Event
from messaging.sql.tables import tables
from messaging.transport import Outgoing
from orchestrator.alarms import blocked, failing, held_too_long, outbox_lag, overdue, slower_than, unmatched, unsent
from orchestrator.ids import child_id, earliest_id
from orchestrator.instance import BlockedReason, Parent, SagaInstance, SagaStatus, StepKey
from orchestrator.sql.backlog import ended_statement, old_statement, unsent_statement
from orchestrator.sql.store import SqlStore
from orchestrator.store import SagaStore
from orchestrator.store_records import UnmatchedMessage
from orchestrator.watchdog import Alarm, Check, found
from tests.conformance.stores import (
    HOUR,
    NOON,
    PIN,
    SECOND,
    Kept,
    MovableClock,
    command,
    make_store,
    opened,
    sqlite_url,
    started,
)

MINUTE = timedelta(minutes=1)
ENDED = {"wake_at": None, "ended_at": NOON}


class Paid(Event): ...


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    where = request.getfixturevalue("migrated_database") if request.param == "postgresql" else sqlite_url(tmp_path)
    clock = MovableClock()
    async with opened(make_store(request.param, where, clock)) as store:
        yield Kept(store, clock)


async def raised(kept: Kept, check: Check) -> list[Alarm]:
    _, alarms = await found(kept.store, [check])
    return alarms


async def blocked_saga(store: SagaStore, step: str, reason: BlockedReason, **changes: Any) -> SagaInstance:
    fields = {"status": SagaStatus.BLOCKED, "blocked_from": SagaStatus.RUNNING, "blocked_at": NOON, "wake_at": None}
    return await started(store, **{**fields, "blocked_step": step, "blocked_reason": reason, **changes})


async def test_blocked_sagas_are_one_alarm_for_each_step_and_reason_once_one_is_blocked_for_long(kept: Kept) -> None:
    for step in ("Booking/ann", "Booking/bob"):
        await blocked_saga(kept.store, step, BlockedReason.RETRIES_EXHAUSTED)
    await blocked_saga(kept.store, "Booking/ann", BlockedReason.RETRIES_EXHAUSTED, blocked_at=NOON + HOUR)
    await blocked_saga(kept.store, "", BlockedReason.NEEDS_VERSION)
    await blocked_saga(kept.store, "Booking", BlockedReason.CODE_ERROR, blocked_at=NOON + SECOND)
    kept.clock.move(MINUTE)
    assert await raised(kept, blocked(MINUTE)) == []

    kept.clock.move(SECOND)
    whole, at_step = await raised(kept, blocked(MINUTE))

    assert (at_step.size, whole.size) == (3, 1)
    assert at_step.about == "create-order at Booking: retries_exhausted"
    assert "create-order blocked at Booking: 3 sagas (retries_exhausted), the first for 1 min 1 s" in at_step.text
    assert whole.facts == {
        "saga": "create-order",
        "step": "",
        "reason": "needs_version",
        "sagas": 1,
        "blocked_seconds": 61,
    }


async def test_a_definition_that_is_held_for_long_raises_the_alarm_until_it_is_released(kept: Kept) -> None:
    async with kept.store.transaction() as tx:
        await tx.hold("create-order", 7, reason="its refunds fail", by="ann")
    kept.clock.move(HOUR)
    assert await raised(kept, held_too_long(HOUR)) == []

    kept.clock.move(SECOND)
    (alarm,) = await raised(kept, held_too_long(HOUR))

    assert (alarm.kind, alarm.about, alarm.size) == ("held", "create-order v7", 3601)
    assert "create-order v7 is held for 1 h 0 min by ann: its refunds fail. Its sagas" in alarm.text
    assert "saga release create-order --version 7" in alarm.text
    async with kept.store.transaction() as tx:
        await tx.release("create-order", None, reason="mended", by="ann")
    assert await raised(kept, held_too_long(HOUR)) == []


async def test_a_saga_that_no_engine_looks_at_raises_the_alarm(kept: Kept) -> None:
    await started(kept.store, wake_at=NOON + HOUR)
    kept.clock.move(HOUR + MINUTE)
    assert await raised(kept, overdue(MINUTE)) == []

    kept.clock.move(SECOND)
    (alarm,) = await raised(kept, overdue(MINUTE))

    assert (alarm.kind, alarm.size, alarm.facts["engines"]) == ("overdue", 61, 0)
    assert "due for 1 min 1 s" in alarm.text


async def test_sagas_older_than_their_definition_expects_are_counted_by_version(kept: Kept) -> None:
    newer = replace(PIN, version=2)
    await started(kept.store)
    await started(kept.store, started_at=NOON - HOUR)
    await started(kept.store, pin=newer)
    await started(kept.store, pin=replace(PIN, name="ship-order"))
    await started(kept.store, status=SagaStatus.COMPLETED, **ENDED)
    kept.clock.move(MINUTE)
    slow = slower_than({PIN: MINUTE, newer: HOUR})
    (alarm,) = await raised(kept, slow)
    assert alarm.size == 1

    kept.clock.move(SECOND)
    (alarm,) = await raised(kept, slow)

    assert (alarm.about, alarm.size, alarm.facts["oldest_seconds"]) == ("create-order v1", 2, 3661)
    assert await raised(kept, slower_than({})) == []


async def test_a_slow_saga_is_counted_whatever_its_id_says_of_its_age(kept: Kept) -> None:
    ids = [earliest_id(NOON - HOUR), earliest_id(NOON - MINUTE + SECOND), child_id(UUID(int=1), StepKey("Paying"), 1)]
    for one in (*ids, UUID(int=2**128 - 1), UUID(int=1)):
        await started(kept.store, id=one)
    kept.clock.move(HOUR)

    (alarm,) = await raised(kept, slower_than({PIN: MINUTE}))

    assert alarm.size == 5


async def test_commands_that_nobody_took_or_the_broker_refuses_are_counted_by_participant(kept: Kept) -> None:
    await started(kept.store, command(participant="taken-by-nobody"))
    refused = command("Paying", participant="refused")
    await started(kept.store, refused)
    on_its_way = command("Shipping", participant="on-its-way")
    await started(kept.store, on_its_way)
    await started(kept.store, command(participant="paused"), wake_at=None, paused_at=NOON)
    await started(kept.store, command(participant="ended"), status=SagaStatus.ABANDONED, **ENDED)
    again = command("Retrying", participant="backing-off", send_after=NOON + HOUR)
    await started(kept.store, again)
    assert refused.command_id and on_its_way.command_id
    async with kept.store.transaction() as tx:
        put_off = {refused.command_id: (NOON + HOUR, "no queue 'refused'")}
        await tx.put_off_sends(put_off)
        await tx.mark_sent([on_its_way.command_id])
    kept.clock.move(MINUTE)
    assert await raised(kept, unsent(MINUTE)) == []

    kept.clock.move(SECOND)
    alarms = await raised(kept, unsent(MINUTE))

    assert [(alarm.about, alarm.size) for alarm in alarms] == [("refused", 1), ("taken-by-nobody", 1)]
    assert "The broker says: no queue 'refused'" in alarms[0].text
    assert "Is an engine running" in alarms[1].text


async def test_a_message_that_stays_in_the_outbox_raises_the_alarm(kept: Kept) -> None:
    assert await raised(kept, outbox_lag(MINUTE)) == []
    async with kept.store.transaction() as tx:
        await tx.add_outgoing([Outgoing(compose_event(Paid()), to_subscribers("paid"))])
    if isinstance(kept.store, SqlStore):  # the bus' own table is dated by the real clock
        async with kept.store.engine.begin() as connection:
            await connection.execute(update(tables(None).outbox).values(created_at=NOON))
    kept.clock.move(MINUTE)
    assert await raised(kept, outbox_lag(MINUTE)) == []

    kept.clock.move(SECOND)
    (alarm,) = await raised(kept, outbox_lag(MINUTE))

    assert (alarm.kind, alarm.size) == ("outbox-lag", 61)


async def test_messages_that_fit_no_saga_raise_the_alarm_when_too_many_came_lately(kept: Kept) -> None:
    some = [UnmatchedMessage(str(number), "of nothing we sent", b"{}", "{}") for number in range(3)]
    async with kept.store.transaction() as tx:
        await tx.add_unmatched(some)
    assert await raised(kept, unmatched(3, HOUR)) == []
    (alarm,) = await raised(kept, unmatched(2, HOUR))
    assert (alarm.kind, alarm.size) == ("unmatched", 3)

    kept.clock.move(HOUR + SECOND)
    async with kept.store.transaction() as tx:
        await tx.add_unmatched(some[:2])

    assert await raised(kept, unmatched(2, HOUR)) == []


async def test_a_version_of_which_too_many_sagas_fail_raises_the_alarm(kept: Kept) -> None:
    newer = replace(PIN, version=2)
    parent = await started(kept.store)
    child = Parent(parent.id, parent.id, "Shipping")
    for _ in range(2):
        await started(kept.store, status=SagaStatus.COMPENSATED, **ENDED)
        await started(kept.store, status=SagaStatus.COMPLETED, **ENDED)
        await started(kept.store, status=SagaStatus.COMPLETED, pin=newer, **ENDED)
        await started(kept.store, status=SagaStatus.COMPENSATED, parent=child, **ENDED)
    await blocked_saga(kept.store, "Booking", BlockedReason.CODE_ERROR)
    await started(kept.store, status=SagaStatus.ABANDONED, pin=newer, **ENDED)
    await started(kept.store, status=SagaStatus.COMPLETED, wake_at=None, ended_at=NOON - HOUR - SECOND)

    (alarm,) = await raised(kept, failing(59, 3, HOUR))

    assert alarm.about == "create-order v1"
    assert alarm.facts["completed"] == 2
    assert alarm.facts["turned_back"] == 2
    assert alarm.facts["blocked"] == 1
    assert "3 of 5 sagas within 1 h 0 min did not complete (2 turned back, 1 blocked)" in alarm.text
    assert await raised(kept, failing(60, 3, HOUR)) == []
    assert await raised(kept, failing(59, 4, HOUR)) == []
    kept.clock.move(HOUR + SECOND)
    assert await raised(kept, failing(59, 3, HOUR)) == []


INDEXES = {
    "ix_saga_step_unsent": unsent_statement(NOON, None),
    "ix_saga_instance_status_name": old_statement({PIN: NOON}, NOON + HOUR, None),
    "ix_saga_instance_ended": ended_statement([SagaStatus.COMPENSATED.value, SagaStatus.ABANDONED.value], NOON, None),
}


FILLED = """
    INSERT INTO saga_instance (id, name, version, fingerprint, status,
                               state, revision, started_at, updated_at, ended_at)
    SELECT md5('saga' || n)::uuid, 'create-order', 1, 'f1', CASE n % 2 WHEN 0 THEN 'completed' ELSE 'compensated' END,
           '{}', 1, now(), now(), now()
    FROM generate_series(1, 3000) n
"""
STEPS = """
    INSERT INTO saga_step (saga_id, step, direction, branch, seq, status, round, attempt, tries, unanswered,
                           started_at, updated_at)
    SELECT id, 'Booking', 'action', '', 1, 'succeeded', 1, 1, 1, 0, now(), now() FROM saga_instance
"""


async def test_what_ended_long_ago_is_not_read(kept: Kept) -> None:
    if not isinstance(kept.store, SqlStore):
        pytest.skip("memory has no indexes")
    async with kept.store.engine.connect() as connection:
        explain = "EXPLAIN QUERY PLAN "
        if connection.dialect.name == "postgresql":
            explain = "EXPLAIN "
            for statement in (FILLED, STEPS, "ANALYZE saga_instance, saga_step"):
                await connection.execute(text(statement))
        for index, statement in INDEXES.items():
            asked = statement.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
            plan = "\n".join(row[-1] for row in await connection.exec_driver_sql(f"{explain}{asked}"))
            assert index in plan
            assert "Seq Scan" not in plan
            assert "SCAN saga_instance" not in plan
