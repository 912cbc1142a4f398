"""What is known of one saga, read at one moment: the ground on which `orchestrator.why` explains.

Reads only, locks nothing. `read_evidence` runs on a blocking connection, inside the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, and_, func, or_, select

from orchestrator.holds import Hold
from orchestrator.instance import CHILD, LOCKS, TIMER, Direction, Pin, SagaStatus, StepStatus
from orchestrator.sql.holds import held
from orchestrator.sql.tables import (
    in_schema,
    saga_event,
    saga_instance,
    saga_lock,
    saga_signal,
    saga_step,
    saga_unmatched,
)
from orchestrator.sql.versions import live_workers
from orchestrator.status import AuditRow, SagaRow, audit_of, get_saga
from orchestrator.workers import DEAD_AFTER

_OPEN: Final = [status.value for status in StepStatus if status.open]


@dataclass(frozen=True, slots=True)
class Holder:
    """A resource that a step waits for, and who holds it; nobody (None) where it waits for its turn or for another."""

    resource: str
    saga_id: UUID | None
    step: str | None
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Held:
    """A resource that a step of the saga holds, and how many other sagas wait for it."""

    resource: str
    step: str
    since: datetime
    waiters: int


@dataclass(frozen=True, slots=True)
class Awaited:
    """A step from which something is awaited: a command that is out or is to be sent, an event, a timer."""

    step: str
    direction: Direction
    branch: str
    status: StepStatus
    message: str
    participant: str
    awaited_key: str
    message_id: UUID | None
    round: int
    attempt: int
    since: datetime
    send_after: datetime | None
    send_attempts: int
    send_error: str
    sent_at: datetime | None
    deadline: datetime | None
    error_code: str
    error_text: str
    kept_events: int = 0
    """Of an event wait: unconsumed events of this type that are kept, under whichever key."""
    holders: Sequence[Holder] = ()
    """Of a step that waits for its locks: who has them."""
    child: SagaRow | None = None
    """Of a step that waits for another saga: that."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Something the saga has yet to be told, and why it was put aside, if it was."""

    kind: str
    error: str
    arrived_at: datetime


@dataclass(frozen=True, slots=True)
class Evidence:
    """One saga with all that explains where it stands."""

    saga: SagaRow
    awaited: Sequence[Awaited]
    signals: Sequence[Asked]
    unmatched: Sequence[str]
    """Why messages that came for it could not be used, the newest first."""
    audit: Sequence[AuditRow]
    known: bool = True
    """Whether an engine that was heard of in the last minute has its definition."""
    blocking_error: tuple[str, str] = ("", "")
    """Code and text of what went wrong last at the step that blocks it."""
    holds: Sequence[Held] = ()
    """What it holds."""
    kept_by: Hold | None = None
    """What keeps it from beginning: a hold of its definition."""
    blocked_on: tuple[str, str] = ("", "")
    """Of the step that blocks it: the name on the wire, and the participant."""


def read_evidence(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> Evidence | None:
    """Read all that explains a saga; None if there is no such saga."""
    saga = get_saga(connection, saga_id, schema=schema)
    if saga is None:
        return None
    blocking = _blocking(connection, saga, schema)
    return Evidence(
        saga,
        _awaited(connection, saga_id, schema),
        _signals(connection, saga_id, schema),
        _unmatched(connection, saga_id, schema),
        audit_of(connection, saga_id, schema=schema),
        _known(connection, saga_id, schema),
        blocking[:2],
        _holds(connection, saga_id, schema),
        _kept_by(connection, saga, schema),
        blocking[2:],
    )


def refused_start(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> str:
    """Why the message that was to start this saga started none; empty if none was put aside."""
    return next(iter(_unmatched(connection, saga_id, schema)), "")


def _known(connection: Connection, saga_id: UUID, schema: str | None) -> bool:
    instance = in_schema(saga_instance, schema).c
    columns = (instance.name, instance.version, instance.fingerprint)
    pin = Pin(*connection.execute(select(*columns).where(instance.id == saga_id)).one())
    workers = live_workers(connection, datetime.now(UTC), DEAD_AFTER, schema=schema)
    return any(pin in worker.pins for worker in workers)


def _blocking(connection: Connection, saga: SagaRow, schema: str | None) -> tuple[str, str, str, str]:
    """What went wrong last where it is blocked, code and text, and with which message to whom.

    Of the undo rather than of the action; a step of an item is named as `Step/item`.
    """
    if saga.blocked_step is None:
        return "", "", "", ""
    step = in_schema(saga_step, schema).c
    statement = (
        select(step.error_code, step.error_text, step.wire_name, step.participant)
        .where(step.saga_id == saga.saga_id, step.error_code != "")
        .where(or_(step.step == saga.blocked_step, step.step + "/" + step.branch == saga.blocked_step))
        .order_by(step.seq.desc())
        .limit(1)
    )
    row = connection.execute(statement).one_or_none()
    return ("", "", "", "") if row is None else (*row[:3], row.participant or "")


def _awaited(connection: Connection, saga_id: UUID, schema: str | None) -> list[Awaited]:
    step = in_schema(saga_step, schema).c
    columns = (
        *(step.step, step.direction, step.branch, step.status, step.wire_name, step.participant),
        *(step.awaited_key, step.command_id, step.round, step.attempt, step.started_at),
        *(step.send_after, step.send_attempts, step.send_error, step.sent_at, step.deadline),
        *(step.error_code, step.error_text),
    )
    rows = connection.execute(
        select(*columns).where(step.saga_id == saga_id, step.status.in_(_OPEN)).order_by(step.seq)
    ).all()
    waited_for = {row.wire_name for row in rows if row.status == StepStatus.WAITING.value} - {TIMER, LOCKS}
    kept = _kept(connection, waited_for, schema)
    holders = _holders(connection, saga_id, schema) if any(row.wire_name == LOCKS for row in rows) else {}
    found = [_of_row(row, kept.get(row.wire_name, 0), holders.get(row.step, ())) for row in rows]
    return [replace(one, child=_child(connection, one, schema)) for one in found]


def _child(connection: Connection, awaited: Awaited, schema: str | None) -> SagaRow | None:
    if awaited.message != CHILD or not awaited.awaited_key:
        return None
    return get_saga(connection, UUID(awaited.awaited_key), schema=schema)


def _holders(connection: Connection, saga_id: UUID, schema: str | None) -> dict[str, list[Holder]]:
    """By the steps that wait for their locks."""
    asked, held = in_schema(saga_lock, schema).alias("asked"), in_schema(saga_lock, schema).alias("held")
    by_others = and_(
        held.c.resource == asked.c.resource, held.c.held_since.is_not(None), held.c.root_id != asked.c.root_id
    )
    statement = (
        select(asked.c.step, asked.c.resource, held.c.saga_id, held.c.step, held.c.held_since)
        .select_from(asked.outerjoin(held, by_others))
        .where(asked.c.saga_id == saga_id, asked.c.held_since.is_(None))
        .order_by(asked.c.id, held.c.id)
    )
    holders: dict[str, list[Holder]] = {}
    for step, *holder in connection.execute(statement):
        holders.setdefault(step, []).append(Holder(*holder))
    return holders


def _holds(connection: Connection, saga_id: UUID, schema: str | None) -> list[Held]:
    held, asked = in_schema(saga_lock, schema).alias("held"), in_schema(saga_lock, schema).alias("asked")
    by_others = (asked.c.resource == held.c.resource, asked.c.held_since.is_(None), asked.c.root_id != held.c.root_id)
    waiting = select(func.count(asked.c.saga_id.distinct())).where(*by_others).scalar_subquery()
    statement = (
        select(held.c.resource, held.c.step, held.c.held_since, waiting)
        .where(held.c.saga_id == saga_id, held.c.held_since.is_not(None))
        .order_by(held.c.id)
    )
    return [Held(*row) for row in connection.execute(statement)]


def _kept_by(connection: Connection, saga: SagaRow, schema: str | None) -> Hold | None:
    """Of a child nothing: it is part of a saga that has begun."""
    hold = next((one for one in held(connection, schema) if one.concerns(saga.saga, saga.version)), None)
    instance = in_schema(saga_instance, schema).c
    not_begun = (instance.id == saga.saga_id, instance.seq == 0, instance.parent_id.is_(None))
    running = saga.status is SagaStatus.RUNNING
    return hold if hold and running and connection.scalar(select(instance.id).where(*not_begun)) else None


def _of_row(row: Any, kept_events: int, holders: Sequence[Holder]) -> Awaited:
    values: list[Any] = [*row, kept_events, holders]
    values[1], values[3] = Direction(values[1]), StepStatus(values[3])
    return Awaited(*values)


def _kept(connection: Connection, wire_names: set[str], schema: str | None) -> dict[str, int]:
    if not wire_names:
        return {}
    event = in_schema(saga_event, schema).c
    statement = (
        select(event.wire_name, func.count())
        .where(event.wire_name.in_(wire_names), event.consumed_at.is_(None))
        .group_by(event.wire_name)
    )
    return {row.wire_name: row[1] for row in connection.execute(statement)}


def _signals(connection: Connection, saga_id: UUID, schema: str | None) -> list[Asked]:
    signal = in_schema(saga_signal, schema).c
    statement = select(signal.kind, signal.error, signal.arrived_at).where(
        signal.saga_id == saga_id, signal.taken_at.is_(None)
    )
    return [Asked(*row) for row in connection.execute(statement.order_by(signal.id))]


def _unmatched(connection: Connection, saga_id: UUID, schema: str | None) -> list[str]:
    unmatched = in_schema(saga_unmatched, schema).c
    statement = select(unmatched.reason).where(unmatched.saga_id == saga_id).order_by(unmatched.id.desc()).limit(5)
    return list(connection.execute(statement).scalars())
