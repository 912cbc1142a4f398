"""What waits in the database, for those who watch it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Column, Connection, ScalarSelect, func, select

from messaging.sql.tables import tables
from orchestrator.instance import SagaStatus
from orchestrator.sql.tables import in_schema, saga_instance, saga_step, saga_worker
from orchestrator.watching import Backlog
from orchestrator.workers import DEAD_AFTER


def backlog(connection: Connection, *, schema: str | None = None) -> Backlog:
    """Read it, in two statements. Reads along indexes, locks nothing."""
    saga, step = in_schema(saga_instance, schema), in_schema(saga_step, schema)
    worker, outbox = in_schema(saga_worker, schema), tables(schema).outbox
    status_is_blocked = saga.c.status == SagaStatus.BLOCKED.value
    which = (saga.c.name, saga.c.blocked_reason)
    blocked = select(*which, func.count()).where(status_is_blocked).group_by(*which)
    alive = worker.c.heartbeat_at >= datetime.now(UTC) - DEAD_AFTER
    numbers = select(
        _oldest(step.c.send_after),
        _oldest(outbox.c.created_at),
        _oldest(saga.c.wake_at),
        select(func.count()).where(alive).scalar_subquery(),
    )
    command, message, wake, engines = connection.execute(numbers).one()
    return Backlog(
        {(name, reason): sagas for name, reason, sagas in connection.execute(blocked)},
        command_overdue_seconds=_seconds_since(command),
        outbox_oldest_seconds=_seconds_since(message),
        wake_overdue_seconds=_seconds_since(wake),
        engines=engines,
    )


def _oldest(column: Column[datetime]) -> ScalarSelect[datetime]:
    """The first entry of its index; null where there is none."""
    return select(func.min(column)).where(column.is_not(None)).scalar_subquery()


def _seconds_since(instant: datetime | None) -> float:
    return 0.0 if instant is None else max(0.0, (datetime.now(UTC) - instant).total_seconds())
