"""The documented views: their columns and types are pinned, and each has a typed row."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import inspect, text
from sqlalchemy.ext.asyncio import async_sessionmaker

from messaging.envelope import Envelope
from messaging.sql.dead_letters import SqlDeadLetters
from messaging.transport import DEAD_LETTER_DETAIL, DEAD_LETTER_REASON
from orchestrator.failures import failures
from orchestrator.ids import new_saga_id
from orchestrator.instance import BlockedReason, FirstCause, SagaStatus, StepStatus
from orchestrator.latencies import Latency, latencies
from orchestrator.signals import Decision, Note
from orchestrator.sql import SqlStore
from orchestrator.status import AuditRow, HistoryRow, SagaRow, StatusReader, TimelineRow
from orchestrator.store import AuditEntry, UnmatchedMessage
from orchestrator.views import ROWS, DeadLetterRow, FailedRow, LatencyRow, StuckRow, UnmatchedRow
from tests.conformance.stores import NOON, SECOND, MovableClock, command, make_store, opened, sqlite_url, started

ID, TEXT, NUMBER, INSTANT, SECONDS = "uuid", "text", "integer", "timestamp with time zone", "double precision"
_STATUS = {
    "saga_id": ID,
    "saga": TEXT,
    "version": NUMBER,
    "business_key": TEXT,
    "status": TEXT,
    "current_step": TEXT,
    "waiting_for": TEXT,
    "waiting_since": INSTANT,
    "attempt": NUMBER,
    "next_wake_at": INSTANT,
    "failed_step": TEXT,
    "error_code": TEXT,
    "error_text": TEXT,
    "blocked_reason": TEXT,
    "blocked_step": TEXT,
    "paused_at": INSTANT,
    "started_at": INSTANT,
    "updated_at": INSTANT,
    "ended_at": INSTANT,
}
VIEWS = {
    "saga_status": _STATUS,
    "saga_active": _STATUS,
    "saga_timeline": {
        "saga_id": ID,
        "seq": NUMBER,
        "step": TEXT,
        "direction": TEXT,
        "branch": TEXT,
        "status": TEXT,
        "participant": TEXT,
        "message": TEXT,
        "round": NUMBER,
        "attempt": NUMBER,
        "sent_at": INSTANT,
        "deadline": INSTANT,
        "error_code": TEXT,
        "error_text": TEXT,
        "send_error": TEXT,
        "started_at": INSTANT,
        "ended_at": INSTANT,
    },
    "saga_stuck": {
        "saga_id": ID,
        "saga": TEXT,
        "business_key": TEXT,
        "status": TEXT,
        "step": TEXT,
        "why": TEXT,
        "since": INSTANT,
    },
    "saga_failed": {
        "saga_id": ID,
        "saga": TEXT,
        "version": NUMBER,
        "business_key": TEXT,
        "status": TEXT,
        "failed_step": TEXT,
        "error_code": TEXT,
        "error_text": TEXT,
        "blocked_reason": TEXT,
        "blocked_step": TEXT,
        "since": INSTANT,
        "started_at": INSTANT,
        "ended_at": INSTANT,
    },
    "saga_latency": {
        "saga_id": ID,
        "saga": TEXT,
        "version": NUMBER,
        "step": TEXT,
        "direction": TEXT,
        "status": TEXT,
        "started_at": INSTANT,
        "ended_at": INSTANT,
        "seconds": SECONDS,
    },
    "saga_lock_wait": {
        "saga_id": ID,
        "saga": TEXT,
        "business_key": TEXT,
        "step": TEXT,
        "resource": TEXT,
        "waiting_since": INSTANT,
        "held_by": ID,
        "held_by_step": TEXT,
        "held_since": INSTANT,
    },
    "saga_dead_letter": {
        "dead_letter_id": ID,
        "queue": "character varying",
        "dead_at": INSTANT,
        "reason": TEXT,
        "detail": TEXT,
        "message": "character varying",
        "message_id": "character varying",
        "correlation_id": "character varying",
    },
    "saga_held": {"saga": TEXT, "version": NUMBER, "held_at": INSTANT, "by": TEXT, "reason": TEXT},
    "saga_state_history": {
        "saga_id": ID,
        "saga": TEXT,
        "business_key": TEXT,
        "version": NUMBER,
        "revision": NUMBER,
        "position": NUMBER,
        "step": TEXT,
        "direction": TEXT,
        "branch": TEXT,
        "cause": TEXT,
        "state": TEXT,
        "at": INSTANT,
    },
    # Tables that are read as views are
    "saga_unmatched": {
        "id": ID,
        "arrived_at": INSTANT,
        "message_id": TEXT,
        "reason": TEXT,
        "saga_id": ID,
        "properties": TEXT,
        "body": "bytea",
    },
    "saga_history": {"id": ID, "saga_id": ID, "at": INSTANT, "kind": TEXT, "step": TEXT, "text": TEXT},
    "saga_audit": {
        "id": ID,
        "saga_id": ID,
        "at": INSTANT,
        "action": TEXT,
        "by": TEXT,
        "reason": TEXT,
        "before": TEXT,
        "after": TEXT,
        "refused": TEXT,
        "signal_id": ID,
    },
}
TYPED = {
    "saga_status": SagaRow,
    "saga_active": SagaRow,
    "saga_timeline": TimelineRow,
    **{row.view: row for row in (*ROWS, HistoryRow, AuditRow)},
}


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlStore]:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        assert isinstance(store, SqlStore)
        yield store


@pytest.fixture
def reader(store: SqlStore) -> StatusReader:
    return StatusReader(store.engine)


async def read(store: SqlStore, work: Any) -> Any:
    async with store.engine.connect() as connection:
        return await connection.run_sync(work)


async def test_columns_of_the_views_are_what_is_promised(store: SqlStore) -> None:
    found = await read(store, lambda c: {name: [one["name"] for one in inspect(c).get_columns(name)] for name in VIEWS})
    assert found == {name: list(columns) for name, columns in VIEWS.items()}


async def test_types_of_the_views_are_what_is_promised(migrated_database: str) -> None:
    async with opened(make_store("postgresql", migrated_database, MovableClock())) as store:
        assert isinstance(store, SqlStore)
        async with store.engine.connect() as connection:
            rows = await connection.execute(
                text(
                    "SELECT table_name, column_name, data_type FROM information_schema.columns "
                    "WHERE table_schema = 'public' ORDER BY ordinal_position"
                )
            )
            types: dict[str, dict[str, str]] = {}
            for view, column, kind in rows:
                types.setdefault(view, {})[column] = kind
    assert {name: types[name] for name in VIEWS} == VIEWS


async def test_every_query_of_the_page_about_sql_runs(store: SqlStore) -> None:
    page = (Path(__file__).parents[2] / "docs" / "sql.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    queries = [one.strip() for block in blocks for one in re.sub(r"--.*", "", block).split(";") if one.strip()]
    assert len(queries) > 12
    for query in queries:
        await read(store, lambda c, query=query: c.exec_driver_sql(query.replace("…", str(UUID(int=1)))).all())


async def test_every_column_of_the_views_tells_what_it_is(migrated_database: str) -> None:
    asked = (
        "SELECT c.relname, a.attname, col_description(c.oid, a.attnum) FROM pg_class c JOIN pg_attribute a "
        "ON a.attrelid = c.oid WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND NOT a.attisdropped"
    )
    async with opened(make_store("postgresql", migrated_database, MovableClock())) as store:
        assert isinstance(store, SqlStore)
        async with store.engine.connect() as connection:
            told = {(view, column): words for view, column, words in await connection.execute(text(asked))}
    assert [(view, column) for view, columns in VIEWS.items() for column in columns if not told[view, column]] == []


@pytest.mark.parametrize("view", sorted(VIEWS.keys() - {"saga_held"}))  # which is read by `SagaClient.holds`
def test_each_view_has_a_typed_row(view: str) -> None:
    assert [field.name for field in fields(TYPED[view])] == list(VIEWS[view])


async def test_what_is_under_way_is_active(store: SqlStore) -> None:
    live = await started(store)
    await started(store, status=SagaStatus.COMPLETED, wake_at=None)

    ids = await read(store, lambda c: c.exec_driver_sql("SELECT saga_id FROM saga_active").scalars().all())

    assert [str(one) for one in ids] == [str(live.id)]


async def test_what_failed_tells_what_went_wrong_first(store: SqlStore, reader: StatusReader) -> None:
    cause = FirstCause("ReservingCredit", "limit-reached", "too much")
    undone = await started(store, status=SagaStatus.COMPENSATED, wake_at=None, first_cause=cause)
    blocked = await started(
        store,
        command("Shipping", status=StepStatus.REFUSED, error_code="closed", error_text="no", send_after=None),
        status=SagaStatus.BLOCKED,
        blocked_reason=BlockedReason.RETRIES_EXHAUSTED,
        blocked_step="Shipping",
        wake_at=None,
    )
    await started(store, status=SagaStatus.COMPLETED, wake_at=None)
    await started(store)

    rows = {row.saga_id: row for row in await reader.rows(FailedRow)}
    stuck = await reader.rows(StuckRow)

    assert {
        one: (row.status, row.failed_step, row.error_code, row.error_text, row.blocked_step)
        for one, row in rows.items()
    } == {
        undone.id: ("compensated", "ReservingCredit", "limit-reached", "too much", None),
        blocked.id: ("blocked", "Shipping", "closed", "no", "Shipping"),
    }
    assert [row.saga_id for row in stuck] == [blocked.id]
    groups = await read(store, lambda c: failures(c, blocked_only=False))
    assert sorted((one.step, one.error_code, one.reason) for one in groups) == [
        ("ReservingCredit", "limit-reached", ""),
        ("Shipping", "closed", "retries_exhausted"),
    ]


async def test_latencies_are_those_of_what_has_ended(store: SqlStore, reader: StatusReader) -> None:
    for seconds in (0.3, 0.4, 30.0):
        end = NOON + seconds * SECOND
        step = command(status=StepStatus.SUCCEEDED, send_after=None, started_at=NOON, ended_at=NOON + SECOND / 2)
        await started(store, step, id=new_saga_id(), status=SagaStatus.COMPLETED, wake_at=None, ended_at=end)
    await started(store, command())

    rows = await reader.rows(LatencyRow)
    sagas: list[Latency] = await read(store, latencies)
    steps: list[Latency] = await read(store, lambda c: latencies(c, saga="create-order", steps=True))

    assert sorted(round(row.seconds, 3) for row in rows if not row.step) == [0.3, 0.4, 30.0]
    (whole,) = sagas
    assert (whole.saga, whole.step, whole.count, round(whole.longest, 3)) == ("create-order", "", 3, 30.0)
    assert [(bound, count) for bound, count in whole.buckets] == [(0.5, 2), (50.0, 1)]
    assert (whole.percentile(0.5), round(whole.percentile(0.99), 3)) == (0.5, 30.0)
    assert [(one.step, one.direction, one.count) for one in steps] == [("ReservingCredit", "action", 3)]
    tomorrow, yesterday = datetime.now(UTC) + timedelta(days=1), datetime.now(UTC) - timedelta(days=1)
    assert await read(store, lambda c: latencies(c, since=tomorrow)) == []
    assert await read(store, lambda c: latencies(c, since=yesterday)) == sagas


async def test_dead_letters_kept_in_the_database_can_be_read(store: SqlStore, reader: StatusReader) -> None:
    notes = {DEAD_LETTER_REASON: "handler-raised", DEAD_LETTER_DETAIL: "ValueError: evil"}
    dead_letters = SqlDeadLetters(async_sessionmaker(store.engine))
    await dead_letters.keep("payments", Envelope("m-1", b"{}", "charge", headers=notes))

    (row,) = await reader.rows(DeadLetterRow)

    assert (row.queue, row.message, row.message_id, row.reason) == ("payments", "charge", "m-1", "handler-raised")


async def test_what_fits_no_saga_and_what_operators_asked_can_be_read(store: SqlStore, reader: StatusReader) -> None:
    saga = await started(store)
    async with store.transaction() as tx:
        await tx.add_unmatched([UnmatchedMessage("m-1", "no saga has sent it", b"\xff", '{"type": "paid"}')])
        await tx.add_audit([AuditEntry(saga.id, "cancel", "ann", "why", "running", "", "too late")])
        locked = (await tx.lock([saga.id])).sagas[saga.id]
        await tx.save([Decision(locked, notes=(Note("retry", "again", "Shipping"),))])

    (unmatched,) = await reader.rows(UnmatchedRow)
    (noted,) = await reader.rows(HistoryRow, limit=5, newest_first=True)
    (asked,) = await reader.rows(AuditRow)

    assert (unmatched.message_id, unmatched.body, unmatched.saga_id) == ("m-1", b"\xff", None)
    assert (noted.saga_id, noted.kind, noted.step) == (saga.id, "retry", "Shipping")
    assert (asked.saga_id, asked.by, asked.refused) == (saga.id, "ann", "too late")
