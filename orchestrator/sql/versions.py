"""Which process has which definition, and the sagas this concerns: rare statements, the same on every database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from orchestrator.instance import BlockedReason, Pin, SagaInstance, SagaStatus
from orchestrator.signal_codec import CHILD_ORDER, upgrade_kind
from orchestrator.sql.hot import known_pins
from orchestrator.sql.items import with_items
from orchestrator.sql.rows import INSTANCE_COLUMNS, STEP_COLUMNS, sagas_of
from orchestrator.sql.tables import in_schema, saga_event, saga_instance, saga_step, saga_worker
from orchestrator.store_records import UnreadEvent
from orchestrator.workers import Worker, worker_of

Condition: TypeAlias = tuple[str, Mapping[str, Any]]
"""Of an instance `i`, with its parameters."""


def overdue(known: Sequence[Pin], since: datetime) -> Condition:
    """Nobody has taken it on since then, and it belongs to none of these definitions."""
    unknown, values = _unknown(known)
    return f"i.wake_at <= :since AND {unknown}", {**values, "since": since}


def ordered_back(known: Sequence[Pin], since: datetime) -> Condition:
    """It completed, nobody has taken its parent's order since then, and it belongs to none of these definitions."""
    unknown, values = _unknown(known)
    ordered = (
        "SELECT saga_id FROM {saga_signal} "  # noqa: S608 - a constant of ours
        f"WHERE taken_at IS NULL AND error = '' AND kind = '{CHILD_ORDER}' AND arrived_at <= :since"
    )
    condition = f"i.status = '{SagaStatus.COMPLETED.value}' AND i.id IN ({ordered}) AND {unknown}"
    return condition, {**values, "since": since}


def _unknown(known: Sequence[Pin]) -> Condition:
    if not known:
        return "1 = 1", {}
    condition, values = known_pins(known)
    return f"NOT {condition}", values


def needing_version(known: Sequence[Pin]) -> Condition:
    """It is blocked for want of its definition, which is one of these."""
    condition, values = known_pins(known)
    return (
        f"i.status = '{SagaStatus.BLOCKED.value}' AND i.blocked_reason = '{BlockedReason.NEEDS_VERSION.value}' "
        f"AND {condition}",
        values,
    )


def upgrading(targets: Sequence[Pin]) -> Condition:
    """Somebody asked for it to be upgraded to one of these definitions."""
    one = (
        "(i.name = :name{0} AND i.id IN (SELECT saga_id FROM {{saga_signal}} "
        "WHERE taken_at IS NULL AND error = '' AND kind = :kind{0}))"
    )
    values: dict[str, Any] = {}
    for number, pin in enumerate(targets):
        values |= {f"name{number}": pin.name, f"kind{number}": upgrade_kind(pin.version)}
    return "(" + " OR ".join(one.format(number) for number in range(len(targets))) + ")", values


def announce(
    connection: Connection, worker: Worker, now: datetime, dead_after: timedelta, schema: str | None
) -> list[Worker]:
    """Write that a process is alive, forget those that are not; return those that are."""
    table = in_schema(saga_worker, schema)
    beaten = update(table).where(table.c.id == worker.id).values(heartbeat_at=now, definitions=worker.definitions)
    if not connection.execute(beaten).rowcount:
        connection.execute(
            insert(table),
            {
                "id": worker.id,
                "host": worker.host,
                "process_id": worker.process_id,
                "definitions": worker.definitions,
                "started_at": now,
                "heartbeat_at": now,
            },
        )
    connection.execute(delete(table).where(table.c.heartbeat_at < now - dead_after))
    return live_workers(connection, now, dead_after, schema=schema)


def live_workers(
    connection: Connection, now: datetime, dead_after: timedelta, *, schema: str | None = None
) -> list[Worker]:
    """The processes that were heard of within this time. Reads only."""
    table = in_schema(saga_worker, schema)
    columns = (table.c.id, table.c.host, table.c.process_id, table.c.definitions)
    alive = select(*columns).where(table.c.heartbeat_at >= now - dead_after).order_by(table.c.id)
    return [worker_of(*row) for row in connection.execute(alive)]


def unread_events(
    connection: Connection, wire_names: Sequence[str], limit: int, schema: str | None
) -> list[UnreadEvent]:
    """Along the index of kept events; what others hold is passed over."""
    event = in_schema(saga_event, schema)
    kept = (event.c.wire_name.in_(wire_names), event.c.key == "", event.c.consumed_at.is_(None))
    columns = (event.c.id, event.c.message_id, event.c.wire_name, event.c.body)
    statement = select(*columns).where(*kept).order_by(event.c.id).limit(limit).with_for_update(skip_locked=True)
    return [UnreadEvent(*row) for row in connection.execute(statement)]


def drop_events(connection: Connection, event_ids: Sequence[UUID], schema: str | None) -> None:
    """One statement."""
    event = in_schema(saga_event, schema)
    connection.execute(delete(event).where(event.c.id.in_(event_ids)))


def set_pins(connection: Connection, pins: Mapping[UUID, Pin], schema: str | None) -> None:
    """One statement, run for each."""
    table = in_schema(saga_instance, schema)
    statement = (
        update(table)
        .where(table.c.id == bindparam("of_id"))
        .values(version=bindparam("to_version"), fingerprint=bindparam("to_fingerprint"))
    )
    connection.execute(
        statement,
        [
            {"of_id": saga_id, "to_version": pin.version, "to_fingerprint": pin.fingerprint}
            for saga_id, pin in pins.items()
        ],
    )


def sagas_of_version(connection: Connection, name: str, version: int, *, schema: str | None = None) -> list[UUID]:
    """The ids of those that may still need their definition: not ended, or held for their parents. Reads only."""
    saga = in_schema(saga_instance, schema)
    ended = [status.value for status in SagaStatus if status.terminal]
    held = (saga.c.status == SagaStatus.COMPLETED.value) & saga.c.parent_id.is_not(None)
    statement = (
        select(saga.c.id)
        .where(saga.c.name == name, saga.c.version == version, saga.c.status.not_in(ended) | held)
        .order_by(saga.c.id)
    )
    return list(connection.execute(statement).scalars())


def read_sagas(
    connection: Connection, saga_ids: Sequence[UUID], *, schema: str | None = None
) -> dict[UUID, SagaInstance]:
    """Sagas as a transaction of the engine loads them. Reads only, locks nothing."""
    instance, step = in_schema(saga_instance, schema), in_schema(saga_step, schema)
    sagas = select(*(instance.c[column] for column in INSTANCE_COLUMNS)).where(instance.c.id.in_(saga_ids))
    no_items = (step.c.saga_id.in_(saga_ids), step.c.branch == "")
    steps = select(*(step.c[column] for column in STEP_COLUMNS)).where(*no_items)
    found = sagas_of(connection.execute(sagas).fetchall(), connection.execute(steps).fetchall())
    return with_items(connection, found, schema)
