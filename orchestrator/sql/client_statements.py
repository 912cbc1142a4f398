"""The statements of clients: ask a saga for something, see the answer, read its state."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import Connection, insert, select

from orchestrator.ids import new_saga_id
from orchestrator.sql.tables import in_schema, saga_audit, saga_instance, saga_signal


def ask(connection: Connection, saga_id: UUID, kind: str, body: str, schema: str | None) -> UUID | None:
    """Leave a signal for a saga; return the signal's id, or None if there is no such saga."""
    instance, signal = in_schema(saga_instance, schema), in_schema(saga_signal, schema)
    if connection.execute(select(instance.c.id).where(instance.c.id == saga_id)).first() is None:
        return None
    signal_id = new_saga_id()
    connection.execute(
        insert(signal),
        {"id": signal_id, "saga_id": saga_id, "kind": kind, "body": body, "arrived_at": datetime.now(UTC)},
    )
    return signal_id


def answer_to(connection: Connection, signal_id: UUID, schema: str | None) -> str | None:
    """What became of an operator's signal: None not yet taken, empty done, else why it was refused."""
    audit = in_schema(saga_audit, schema)
    return connection.execute(select(audit.c.refused).where(audit.c.signal_id == signal_id)).scalar_one_or_none()


def state_of(connection: Connection, saga_id: UUID, name: str, schema: str | None) -> str | None:
    """A saga's state as JSON text; None if no saga of this name has this id."""
    instance = in_schema(saga_instance, schema)
    this = (instance.c.id == saga_id, instance.c.name == name)
    return connection.execute(select(instance.c.state).where(*this)).scalar_one_or_none()
