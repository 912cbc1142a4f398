"""How many sagas have not ended, by definition and step: what a deployment must still know."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from orchestrator.instance import Pin, SagaStatus
from orchestrator.sql.planning import along_indexes
from orchestrator.sql.tables import in_schema, saga_instance


@dataclass(frozen=True, slots=True)
class InFlight:
    """Sagas of one definition that stand at one place."""

    pin: Pin
    status: SagaStatus
    current_step: str
    """What is awaited, or what blocks; empty before the first step."""
    count: int


def in_flight(connection: Connection, *, schema: str | None = None) -> list[InFlight]:
    """Count the sagas that have not ended: each of them is read, and nothing that has. Reads only, locks nothing."""
    saga = in_schema(saga_instance, schema)
    place = (saga.c.name, saga.c.version, saga.c.fingerprint, saga.c.status, saga.c.current_step)
    open_ones = [status.value for status in SagaStatus if not status.terminal]
    statement = select(*place, func.count()).where(saga.c.status.in_(open_ones)).group_by(*place).order_by(*place)
    with along_indexes(connection):
        rows = connection.execute(statement).all()
    return [
        InFlight(Pin(name, version, fingerprint), SagaStatus(status), step, count)
        for name, version, fingerprint, status, step, count in rows
    ]
