"""What waits in the database, for those who watch it."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, func, select

from messaging.sql.tables import tables
from orchestrator.instance import SagaStatus
from orchestrator.sql.tables import in_schema, saga_instance, saga_step
from orchestrator.watching import Backlog


def backlog(connection: Connection, *, schema: str | None = None) -> Backlog:
    """Read it. Reads along indexes, locks nothing."""
    saga, step = in_schema(saga_instance, schema), in_schema(saga_step, schema)
    outbox = tables(schema).outbox
    status_is_blocked = saga.c.status == SagaStatus.BLOCKED.value
    blocked = select(saga.c.name, func.count().label("sagas")).where(status_is_blocked).group_by(saga.c.name)
    due = select(func.min(step.c.send_after)).where(step.c.send_after.is_not(None))
    return Backlog(
        {row.name: row.sagas for row in connection.execute(blocked)},
        _seconds_since(connection.scalar(due)),
        _seconds_since(connection.scalar(select(func.min(outbox.c.created_at)))),
    )


def _seconds_since(instant: datetime | None) -> float:
    return 0.0 if instant is None else max(0.0, (datetime.now(UTC) - instant).total_seconds())
