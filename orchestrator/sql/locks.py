"""The statements about resources that sagas hold or ask for; the same on every database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    delete,
    exists,
    func,
    insert,
    not_,
    select,
    update,
)

from orchestrator.granting import LockRow
from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.rising_ids import new_id
from orchestrator.signals import LockChange, LocksAsked, LocksLetGo
from orchestrator.sql.tables import in_schema, saga_installation, saga_instance, saga_lock
from orchestrator.store_records import HeldLock

_TERMINAL: Final = [status.value for status in SagaStatus if status.terminal]


def change_locks(
    connection: Connection, saga: SagaInstance, changes: Sequence[LockChange], now: datetime, schema: str | None
) -> None:
    """Ids are made here, so that they rise in order of asking."""
    lock, root = in_schema(saga_lock, schema), saga.parent.root if saga.parent else saga.id
    for change in changes:
        if isinstance(change, LocksAsked):
            fields = {"root_id": root, "saga_id": saga.id, "step": change.step, "waits": change.waits, "asked_at": now}
            rows: list[dict[str, Any]] = [{"id": new_id(), "resource": one, **fields} for one in change.resources]
            connection.execute(insert(lock), rows)
        elif isinstance(change, LocksLetGo):
            connection.execute(delete(lock).where(lock.c.saga_id == saga.id, lock.c.step == change.step))
        else:
            connection.execute(delete(lock).where(lock.c.root_id == root, _of_nobody(lock, schema)))


def contended_locks(connection: Connection, schema: str | None) -> list[LockRow]:
    """Look first without any lock: mostly nobody asks. Then one transaction at a time decides."""
    lock, installation = in_schema(saga_lock, schema), in_schema(saga_installation, schema)
    asked = select(lock.c.resource).where(lock.c.held_since.is_(None))
    if connection.execute(asked.limit(1)).first() is None:
        return []
    connection.execute(select(installation.c.only_row).with_for_update())
    connection.execute(delete(lock).where(lock.c.resource.in_(asked), _of_nobody(lock, schema)))
    columns = (lock.c.id, lock.c.resource, lock.c.root_id, lock.c.saga_id, lock.c.step, lock.c.waits)
    rows = select(*columns, lock.c.held_since.is_not(None)).where(lock.c.resource.in_(asked)).order_by(lock.c.id)
    return [LockRow(*row) for row in connection.execute(rows)]


def settle_locks(
    connection: Connection, granted: Sequence[UUID], denied: Sequence[UUID], now: datetime, schema: str | None
) -> None:
    """What was let go of meanwhile is passed over."""
    lock = in_schema(saga_lock, schema)
    if granted:
        connection.execute(update(lock).where(lock.c.id.in_(granted)).values(held_since=now))
    if denied:
        connection.execute(delete(lock).where(lock.c.id.in_(denied)))


def held_locks(connection: Connection, before: datetime, limit: int, schema: str | None) -> list[HeldLock]:
    """One statement; the table holds what is held or asked for now, and no more."""
    held, asks = in_schema(saga_lock, schema).alias("held"), in_schema(saga_lock, schema).alias("asks")
    waiting = select(func.count(asks.c.saga_id.distinct())).where(
        asks.c.resource == held.c.resource, asks.c.held_since.is_(None), asks.c.root_id != held.c.root_id
    )
    columns = (held.c.id, held.c.resource, held.c.saga_id, held.c.step, held.c.held_since)
    rows = (
        select(*columns, waiting.scalar_subquery())
        .where(held.c.held_since < before, not_(_of_nobody(held, schema)))
        .order_by(held.c.held_since, held.c.id)
        .limit(limit)
    )
    return [HeldLock(*row) for row in connection.execute(rows)]


def _of_nobody(lock: FromClause, schema: str | None) -> ColumnElement[bool]:
    """Whether the saga, and the first of its ancestors, have ended."""
    root, saga = in_schema(saga_instance, schema).alias("root"), in_schema(saga_instance, schema).alias("saga")
    return and_(
        exists(select(root.c.id).where(root.c.id == lock.c.root_id, root.c.status.in_(_TERMINAL))),
        exists(select(saga.c.id).where(saga.c.id == lock.c.saga_id, saga.c.status.in_(_TERMINAL))),
    )
