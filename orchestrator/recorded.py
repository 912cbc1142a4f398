"""All that is stored of one saga, messages included: what a test is written from.

Reads only, locks nothing. `read_recorded` runs on a blocking connection, inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Connection, select

from orchestrator.instance import CHILD, Direction, Pin, SagaStatus, StepStatus
from orchestrator.sql.tables import in_schema, saga_instance, saga_step
from orchestrator.status import AuditRow, HistoryRow, audit_of, history_of
from orchestrator.views import StateRow, states_of


@dataclass(frozen=True, slots=True)
class RecordedStep:
    """One direction of one step, with what was sent and what came back."""

    step: str
    direction: Direction
    branch: str
    status: StepStatus
    wire_name: str
    round: int
    sent: bool
    body: str | None
    reply: str | None
    error_code: str
    started_at: datetime
    ended_at: datetime | None
    child_state: str | None = None
    """Of a step with a child saga: the child's state, as it is now."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """One saga as it is stored. The state is that of now."""

    id: UUID
    pin: Pin
    status: SagaStatus
    state: str
    started_at: datetime
    updated_at: datetime
    steps: Sequence[RecordedStep]
    history: Sequence[HistoryRow]
    audit: Sequence[AuditRow]
    states: Sequence[StateRow] = ()
    """As it was, where the definition keeps states: those that were asked for."""


def read_recorded(
    connection: Connection,
    saga_id: UUID,
    *,
    states: int | None = 0,
    since: tuple[int, int] = (0, 0),
    schema: str | None = None,
) -> Recorded | None:
    """Read all that is stored of a saga; None if there is no such saga.

    Args:
        connection: inside the caller's transaction.
        saga_id: which.
        states: how many of the states it has had, at most, the oldest first; None: all.
        since: revision and position of the first of them.
        schema: of the tables.
    """
    saga = in_schema(saga_instance, schema).c
    columns = (saga.name, saga.version, saga.fingerprint, saga.status, saga.state, saga.started_at, saga.updated_at)
    row = connection.execute(select(*columns).where(saga.id == saga_id)).one_or_none()
    if row is None:
        return None
    return Recorded(
        saga_id,
        Pin(row.name, row.version, row.fingerprint),
        SagaStatus(row.status),
        row.state,
        row.started_at,
        row.updated_at,
        _steps(connection, saga_id, schema),
        history_of(connection, saga_id, schema=schema),
        audit_of(connection, saga_id, schema=schema),
        () if states == 0 else states_of(connection, saga_id, since=since, limit=states, schema=schema),
    )


def _steps(connection: Connection, saga_id: UUID, schema: str | None) -> list[RecordedStep]:
    step = in_schema(saga_step, schema).c
    columns = (
        *(step.step, step.direction, step.branch, step.status, step.wire_name, step.round, step.sent_at),
        *(step.body, step.reply, step.error_code, step.started_at, step.ended_at, step.awaited_key),
    )
    children = _states_of_children(connection, saga_id, schema)
    statement = select(*columns).where(step.saga_id == saga_id).order_by(step.seq, step.branch)
    return [
        RecordedStep(
            row.step,
            Direction(row.direction),
            row.branch,
            StepStatus(row.status),
            row.wire_name,
            row.round,
            row.sent_at is not None,
            row.body,
            row.reply,
            row.error_code,
            row.started_at,
            row.ended_at,
            children.get(row.awaited_key) if row.wire_name == CHILD else None,
        )
        for row in connection.execute(statement)
    ]


def _states_of_children(connection: Connection, saga_id: UUID, schema: str | None) -> dict[str, str]:
    saga = in_schema(saga_instance, schema).c
    rows = connection.execute(select(saga.id, saga.state).where(saga.parent_id == saga_id))
    return {str(row.id): row.state for row in rows}
