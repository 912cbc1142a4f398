"""The views read the same on both databases: where is order 42, what is it waiting for, since when, what failed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from orchestrator.evidence import read_evidence
from orchestrator.instance import (
    BlockedReason,
    Direction,
    FirstCause,
    Parent,
    Pin,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.signals import Decision, Note
from orchestrator.sql import SqlStore
from orchestrator.status import SagaFilter, StatusReader
from orchestrator.store_records import AuditEntry, NewSignal, ReceivedEvent, UnmatchedMessage
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
    wait,
)


@pytest.fixture(params=["sqlite", "postgresql", PSYCOPG])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Any]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


@pytest.fixture
def reader(store: SqlStore) -> StatusReader:
    return StatusReader(store.engine)


async def test_a_saga_tells_what_it_waits_for_and_since_when(store: SqlStore, reader: StatusReader) -> None:
    since = NOON + SECOND
    saga = await started(
        store,
        command(attempt=2, started_at=since),
        wait(seq=2, started_at=since + HOUR),
        business_key="42",
        current_step="ReservingCredit, AwaitingPayment",
    )
    row = await reader.get(saga.id)
    assert row is not None
    assert asdict(row) == {
        "saga_id": saga.id,
        "saga": "create-order",
        "version": 1,
        "business_key": "42",
        "status": SagaStatus.RUNNING,
        "current_step": "ReservingCredit, AwaitingPayment",
        "waiting_for": "reply to reserve-credit from customers, event payment-captured",
        "waiting_since": since,
        "attempt": 2,
        "next_wake_at": NOON,
        **dict.fromkeys(("failed_step", "error_code", "error_text", "blocked_reason", "blocked_step", "paused_at")),
        "started_at": NOON,
        "updated_at": NOON,
        "ended_at": None,
    }


async def test_a_saga_that_nobody_started_is_not_there(reader: StatusReader) -> None:
    assert await reader.get(uuid4()) is None


@pytest.mark.parametrize(
    ("changes", "waiting_for", "since"),
    [
        ({}, "the engine", NOON),
        ({"paused_at": NOON + HOUR, "wake_at": None}, "an operator to resume it", NOON + HOUR),
        ({"status": SagaStatus.COMPLETED, "wake_at": None}, None, None),
        (
            {
                "status": SagaStatus.BLOCKED,
                "blocked_reason": BlockedReason.CODE_ERROR,
                "blocked_at": NOON + SECOND,
                "wake_at": None,
            },
            "an operator",
            NOON + SECOND,
        ),
    ],
    ids=["new", "paused", "completed", "blocked"],
)
async def test_what_a_saga_without_open_steps_waits_for(
    store: SqlStore, reader: StatusReader, changes: Any, waiting_for: str | None, since: Any
) -> None:
    row = await reader.get((await started(store, **changes)).id)
    assert row is not None
    assert (row.waiting_for, row.waiting_since) == (waiting_for, since)


async def test_what_failed_first_stays_readable_and_a_block_tells_its_own_error(
    store: SqlStore, reader: StatusReader
) -> None:
    cause = FirstCause("ReservingCredit", "limit-reached", "too much")
    turned = await started(store, status=SagaStatus.COMPENSATING, first_cause=cause)
    blocked = await started(
        store,
        command("ShippingOrder", status=StepStatus.REFUSED, error_code="closed", error_text="no", send_after=None),
        status=SagaStatus.BLOCKED,
        blocked_reason=BlockedReason.RETRIES_EXHAUSTED,
        blocked_step="ShippingOrder",
        wake_at=None,
    )
    rows = [await reader.get(turned.id), await reader.get(blocked.id)]
    assert [(row.failed_step, row.error_code, row.error_text) for row in rows if row] == [
        ("ReservingCredit", "limit-reached", "too much"),
        ("ShippingOrder", "closed", "no"),
    ]


async def test_a_block_at_a_step_of_an_item_tells_that_items_error(store: SqlStore, reader: StatusReader) -> None:
    def packing(branch: str, seq: int, error: str, direction: Direction = Direction.ACTION) -> StepRecord:
        key = StepKey("PackingLine", direction, branch)
        ended = {"status": StepStatus.REFUSED, "send_after": None, "ended_at": NOON}
        return command(seq=seq, key=key, error_code=error, error_text=f"of {branch}", **ended)

    def lines() -> list[StepRecord]:
        undo = packing("sku-7", 2, "stuck", Direction.COMPENSATION)
        return [packing("sku-7", 1, "torn"), undo, packing("sku-8", 3, "wet")]

    blocked = {
        "status": SagaStatus.BLOCKED,
        "blocked_reason": BlockedReason.COMPENSATION_FAILED,
        "blocked_at": NOON,
        "wake_at": None,
    }
    at_an_item = await started(store, *lines(), **blocked, blocked_step="PackingLine/sku-7")
    at_all_items = await started(store, *lines(), **blocked, blocked_step="PackingLine")

    rows = [await reader.get(saga.id) for saga in (at_an_item, at_all_items)]

    assert [(row.failed_step, row.error_code, row.error_text) for row in rows if row] == [
        ("PackingLine/sku-7", "stuck", "of sku-7"),
        ("PackingLine", None, None),
    ]


async def test_the_error_of_an_item_is_read_by_its_key_however_many_items_there_are(migrated_database: str) -> None:
    async with opened(make_store("postgresql", migrated_database, MovableClock())) as store:
        assert isinstance(store, SqlStore)
        async with store.engine.connect() as connection:
            await connection.execute(text("SET enable_seqscan = off"))
            plan = [row[0] for row in await connection.execute(text("EXPLAIN SELECT error_text FROM saga_status"))]
    (condition,) = (line for line in plan if "Index Cond" in line)
    assert all(column in condition for column in ("(saga_id =", "(step =", "(branch ="))


async def test_a_saga_that_is_held_waits_for_an_operator(store: SqlStore, reader: StatusReader) -> None:
    new, begun = await started(store), await started(store, command())
    child = await started(store, parent=Parent(begun.id, begun.id, "Paying"))
    other = await started(store, pin=Pin("create-order", 2, "f2"))
    async with store.transaction() as tx:
        await tx.hold("create-order", 1, reason="they fail", by="ann")

    async def waiting_for() -> list[str | None]:
        rows = [await reader.get(saga.id) for saga in (new, begun, child, other)]
        return [row.waiting_for for row in rows if row]

    reply = "reply to reserve-credit from customers"
    assert await waiting_for() == ["an operator to release its definition", reply, "the engine", "the engine"]
    async with store.transaction() as tx:
        await tx.release("create-order", None, reason="mended", by="bob")
    assert await waiting_for() == ["the engine", reply, "the engine", "the engine"]


async def test_listing_pages_through_everything_once(store: SqlStore, reader: StatusReader) -> None:
    sagas = [await started(store) for _ in range(7)]
    listed = [row.saga_id async for row in reader.list(page_size=3)]
    assert listed == sorted((saga.id for saga in sagas), reverse=True)


async def test_listing_finds_by_name_status_key_and_step(store: SqlStore, reader: StatusReader) -> None:
    one = await started(store, command("One"), business_key="42")
    await started(store, command("One", status=StepStatus.SUCCEEDED, send_after=None), status=SagaStatus.COMPENSATING)

    async def found(**which: Any) -> list[Any]:
        return [row.saga_id async for row in reader.list(SagaFilter(**which))]

    assert await found(saga="other") == []
    assert len(await found(saga="create-order")) == 2
    assert await found(status=SagaStatus.RUNNING) == [one.id]
    assert await found(key="42", saga="create-order") == [one.id]
    assert await found(step="One") == [one.id]


async def test_the_timeline_tells_each_step_in_order(store: SqlStore, reader: StatusReader) -> None:
    saga = await started(store, command("Two", seq=2), command("One", seq=1, error_code="x", error_text="y"))
    rows = await reader.timeline(saga.id)
    assert [(row.step, row.status, row.participant, row.message, row.error_code) for row in rows] == [
        ("One", StepStatus.OUTSTANDING, "customers", "reserve-credit", "x"),
        ("Two", StepStatus.OUTSTANDING, "customers", "reserve-credit", None),
    ]


async def test_notes_and_answers_to_operators_can_be_read(store: SqlStore, reader: StatusReader) -> None:
    saga = await started(store)
    asked = uuid4()
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([Decision(saga, notes=(Note("late-reply", "came late", "One"), Note("x", "", unusable=True)))])
        await tx.add_audit([AuditEntry(saga.id, "cancel", "ann", "why", "running", "", "too late", asked)])
    assert [(row.kind, row.text, row.step, row.at) for row in await reader.history(saga.id)] == [
        ("late-reply", "came late", "One", NOON)
    ]
    answer = await reader.answer(asked)
    assert answer is not None
    assert (answer.by, answer.refused, list(await reader.audit(saga.id))) == ("ann", "too late", [answer])
    assert await reader.answer(uuid4()) is None


async def test_stuck_sagas_are_listed_with_why(store: SqlStore) -> None:
    overdue = NOON.replace(year=2001)
    saga = await started(store, command("Sending"), wake_at=overdue)
    await started(store, wake_at=NOON.replace(year=2101))
    blocked = await started(
        store,
        status=SagaStatus.BLOCKED,
        blocked_reason=BlockedReason.PIVOT_UNKNOWN,
        blocked_step="ShippingOrder",
        wake_at=None,
    )
    async with store.transaction() as tx:
        await tx.claim_unsent(limit=1, grace=SECOND)
        sending = saga.steps[StepKey("Sending")].command_id
        assert sending is not None
        await tx.put_off_sends({sending: (NOON, "no queue takes it")})
    async with store.engine.connect() as connection:
        rows = (await connection.execute(text("SELECT saga_id, step, why FROM saga_stuck ORDER BY why"))).fetchall()
    assert [(str(row[0]), row[1], row[2]) for row in rows] == [
        (str(blocked.id), "ShippingOrder", "blocked: pivot_unknown at ShippingOrder"),
        (str(saga.id), "Sending", "cannot be sent: reserve-credit to customers: no queue takes it"),
        (str(saga.id), None, "overdue: no engine has looked at it since 2001-02-03 12:00:00.000789"),
    ]


async def test_all_that_explains_a_saga_is_read_at_one_moment(store: SqlStore) -> None:
    saga = await started(store, command(attempt=2, error_code="timeout"), wait("42", seq=2))
    async with store.transaction() as tx:
        await tx.add_events([ReceivedEvent("m-1", "payment-captured", "43", "{}", HOUR)])
        await tx.add_signals([NewSignal(saga.id, "cancel", "{}"), NewSignal(saga.id, "reply", "{}", "KeyError: 'x'")])
        await tx.add_unmatched([UnmatchedMessage("m-2", "unknown outcome", b"?", "{}", saga.id)])

    async with store.engine.connect() as connection:
        found = await connection.run_sync(read_evidence, saga.id)
        nothing = await connection.run_sync(read_evidence, uuid4())

    assert found is not None and nothing is None
    assert found.saga.saga_id == saga.id
    out, waits = found.awaited
    assert (out.step, out.attempt, out.error_code, out.message_id) == (
        "ReservingCredit",
        2,
        "timeout",
        saga.steps[StepKey("ReservingCredit")].command_id,
    )
    assert (waits.message, waits.awaited_key, waits.deadline, waits.kept_events) == (
        "payment-captured",
        "42",
        NOON + HOUR,
        1,
    )
    assert [(signal.kind, signal.error) for signal in found.signals] == [("cancel", ""), ("reply", "KeyError: 'x'")]
    assert found.unmatched == ["unknown outcome"]
