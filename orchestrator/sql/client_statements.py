"""The statements of clients: ask a saga for something, see the answer, read its state."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select, union_all

from orchestrator.ids import new_saga_id
from orchestrator.sql.rows import key_of
from orchestrator.sql.tables import in_schema, saga_attempt, saga_audit, saga_instance, saga_signal, saga_step
from orchestrator.store_records import CommandRef


def ask(
    connection: Connection, saga_ids: Sequence[UUID], kind: str, body: str, schema: str | None
) -> dict[UUID, UUID | None]:
    """Leave a signal for each saga; return the signals' ids, None where there is no such saga."""
    instance, signal = in_schema(saga_instance, schema), in_schema(saga_signal, schema)
    found = set(connection.scalars(select(instance.c.id).where(instance.c.id.in_(saga_ids))))
    signals = {saga_id: new_saga_id() if saga_id in found else None for saga_id in saga_ids}
    rows = {"kind": kind, "body": body, "arrived_at": datetime.now(UTC)}
    told = [{"id": signal_id, "saga_id": saga_id, **rows} for saga_id, signal_id in signals.items() if signal_id]
    if told:
        connection.execute(insert(signal), told)
    return signals


def command_of(connection: Connection, command_id: UUID, schema: str | None) -> CommandRef | None:
    """Find an attempt of a command, a replaced one included."""
    step, attempt = in_schema(saga_step, schema), in_schema(saga_attempt, schema)
    found = (
        select(table.c.saga_id, table.c.step, table.c.direction, table.c.branch, table.c.round, table.c.attempt).where(
            table.c.command_id == command_id
        )
        for table in (step, attempt)
    )
    row = connection.execute(union_all(*found)).first()
    return CommandRef(row[0], key_of(row[1], row[2], row[3]), row[4], row[5]) if row is not None else None


def answers_to(connection: Connection, signal_ids: Sequence[UUID], schema: str | None) -> dict[UUID, str]:
    """What became of operators' signals, of those that were taken: empty done, else why it was refused."""
    audit = in_schema(saga_audit, schema)
    statement = select(audit.c.signal_id, audit.c.refused).where(audit.c.signal_id.in_(signal_ids))
    return {row.signal_id: row.refused for row in connection.execute(statement)}


def state_of(connection: Connection, saga_id: UUID, name: str, schema: str | None) -> str | None:
    """A saga's state as JSON text; None if no saga of this name has this id."""
    instance = in_schema(saga_instance, schema)
    this = (instance.c.id == saga_id, instance.c.name == name)
    return connection.execute(select(instance.c.state).where(*this)).scalar_one_or_none()
