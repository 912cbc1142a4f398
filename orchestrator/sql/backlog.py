"""What waits in the database, for those who watch it; the same statements on every database.

Each reads along an index what is live, or what came lately, and never what has ended long ago. Nothing is locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    ScalarSelect,
    Select,
    and_,
    exists,
    func,
    or_,
    select,
    tuple_,
    union_all,
)

from messaging.sql.tables import tables
from orchestrator.backlog import Backlog, BlockedSagas, OldSagas, Outcomes, UnsentCommands, merged
from orchestrator.ids import earliest_id
from orchestrator.instance import Pin, SagaStatus
from orchestrator.sql.planning import along_indexes
from orchestrator.sql.tables import in_schema, saga_instance, saga_step, saga_unmatched, saga_worker
from orchestrator.workers import DEAD_AFTER

_LIVE: Final = [status.value for status in SagaStatus if not status.terminal]
_IDS_LATER: Final = timedelta(minutes=1)
"""An id is made in the moment of its saga's start, and not later than that."""
_CLOCKS_DIFFER: Final = timedelta(days=1)
_TURNED_BACK: Final = [status.value for status in SagaStatus if status.terminal and status is not SagaStatus.COMPLETED]


def backlog(connection: Connection, *, schema: str | None = None, now: datetime | None = None) -> Backlog:
    """Read it, in two statements."""
    return replace(lags(connection, schema=schema, now=now), blocked_sagas=_blocked(connection, schema))


def lags(connection: Connection, *, schema: str | None = None, now: datetime | None = None) -> Backlog:
    """The same without the blocked sagas, in one statement that takes no longer however much waits."""
    now = now or datetime.now(UTC)
    step, worker = in_schema(saga_step, schema), in_schema(saga_worker, schema)
    outbox, saga = tables(schema).outbox, in_schema(saga_instance, schema)
    alive = worker.c.heartbeat_at >= now - DEAD_AFTER
    numbers = select(
        _oldest(step.c.send_after),
        # By id, which rises with time, as no index has the instant.
        select(outbox.c.created_at).order_by(outbox.c.id).limit(1).scalar_subquery(),
        _oldest(saga.c.wake_at),
        select(func.count()).where(alive).scalar_subquery(),
    )
    command, message, wake, engines = connection.execute(numbers).one()
    return Backlog(
        command_overdue_seconds=_seconds_since(command, now),
        outbox_oldest_seconds=_seconds_since(message, now),
        wake_overdue_seconds=_seconds_since(wake, now),
        engines=engines,
    )


def _blocked(connection: Connection, schema: str | None) -> tuple[BlockedSagas, ...]:
    saga = in_schema(saga_instance, schema)
    which = (saga.c.name, saga.c.blocked_step, saga.c.blocked_reason)
    since = func.min(func.coalesce(saga.c.blocked_at, saga.c.updated_at))
    found = select(*which, func.count(), since).where(saga.c.status == SagaStatus.BLOCKED.value).group_by(*which)
    return merged([BlockedSagas(*row) for row in connection.execute(found)])


def _oldest(column: Column[datetime]) -> ScalarSelect[datetime]:
    """The first entry of its index; null where there is none."""
    return select(func.min(column)).where(column.is_not(None)).scalar_subquery()


def _seconds_since(instant: datetime | None, now: datetime) -> float:
    return 0.0 if instant is None else max(0.0, (now - instant).total_seconds())


def unsent_commands(connection: Connection, before: datetime, schema: str | None) -> list[UnsentCommands]:
    """Those that nobody took, and those that were tried in vain, whose next try is always ahead."""
    rows = connection.execute(unsent_statement(before, schema))
    return [UnsentCommands(*row) for row in rows]


def unsent_statement(before: datetime, schema: str | None) -> Select[*tuple[Any, ...]]:
    """Along the index of what is unsent, which is what has not left yet and what waits to be tried again."""
    step = in_schema(saga_step, schema)
    return (
        select(step.c.participant, func.count(), func.min(step.c.started_at), func.max(step.c.send_error))
        .where(*should_have_left(before, schema))
        .group_by(step.c.participant)
        .order_by(step.c.participant)
    )


def should_have_left(before: datetime, schema: str | None) -> Sequence[ColumnElement[bool]]:
    """What is so of steps whose command nobody took by then, or was tried in vain."""
    step, saga = in_schema(saga_step, schema), in_schema(saga_instance, schema)
    in_vain = and_(step.c.send_error != "", step.c.started_at < before)
    # Not a join: SQLite would begin with all live sagas.
    meant_to_leave = exists(
        select(saga.c.id).where(saga.c.id == step.c.saga_id, saga.c.status.in_(_LIVE), saga.c.paused_at.is_(None))
    )
    return step.c.send_after.is_not(None), or_(step.c.send_after < before, in_vain), meant_to_leave


def old_sagas(
    connection: Connection, before: Mapping[Pin, datetime], now: datetime, schema: str | None
) -> list[OldSagas]:
    """One statement for all of them, and on PostgreSQL two before it and one after."""
    with along_indexes(connection):
        rows = connection.execute(old_statement(before, now, schema)).all()
    found: dict[tuple[str, int], OldSagas] = {}
    for name, version, sagas, since in rows:
        other = found.get((name, version), OldSagas(name, version, 0, since))
        found[name, version] = OldSagas(name, version, other.sagas + sagas, min(other.since, since))
    return list(found.values())


def old_statement(
    before: Mapping[Pin, datetime], now: datetime, schema: str | None
) -> CompoundSelect[*tuple[Any, ...]]:
    """Along the index of status, name and id: the live sagas of these definitions, but for those with younger ids.

    An id tells when its saga was started, unless its parent or a message chose it. Such an id tells nothing: nearly
    all of them lie beyond those of today, and their sagas are read. Two parts for each version, for the planner would
    read both along one condition with OR.
    """
    saga = in_schema(saga_instance, schema)
    which, beyond = (saga.c.name, saga.c.version), saga.c.id >= earliest_id(now + _CLOCKS_DIFFER)
    return union_all(
        *(
            select(*which, func.count(), func.min(saga.c.started_at))
            .where(saga.c.status.in_(_LIVE), saga.c.name == pin.name, saga.c.version == pin.version)
            .where(saga.c.started_at < instant, part)
            .group_by(*which)
            for pin, instant in before.items()
            for part in (saga.c.id < earliest_id(instant + _IDS_LATER), beyond)
        )
    )


def unmatched_since(connection: Connection, since: datetime, schema: str | None) -> int:
    """The table is bounded to some thousand rows."""
    unmatched = in_schema(saga_unmatched, schema)
    return connection.execute(select(func.count()).where(unmatched.c.arrived_at >= since)).scalar_one()


def outcomes(connection: Connection, since: datetime, at_least: int, schema: str | None) -> list[Outcomes]:
    """What completed is counted only where enough did not: it is most of what there is."""
    saga = in_schema(saga_instance, schema)
    blocked_since = and_(
        saga.c.status == SagaStatus.BLOCKED.value, saga.c.blocked_at >= since, saga.c.parent_id.is_(None)
    )
    turned_back = _counted(connection, ended_statement(_TURNED_BACK, since, schema))
    blocked = _counted(connection, _by_version(schema).where(blocked_since))
    many = [one for one in {**turned_back, **blocked} if turned_back.get(one, 0) + blocked.get(one, 0) >= at_least]
    if not many:
        return []
    which = tuple_(saga.c.name, saga.c.version).in_(many)
    completed = _counted(connection, ended_statement([SagaStatus.COMPLETED.value], since, schema).where(which))
    return [Outcomes(*one, completed.get(one, 0), turned_back.get(one, 0), blocked.get(one, 0)) for one in sorted(many)]


def ended_statement(statuses: Sequence[str], since: datetime, schema: str | None) -> Select[*tuple[Any, ...]]:
    """Along the index of what has ended: from `since` on, children left out."""
    saga = in_schema(saga_instance, schema)
    lately = and_(saga.c.ended_at.is_not(None), saga.c.ended_at >= since, saga.c.parent_id.is_(None))
    return _by_version(schema).where(saga.c.status.in_(statuses), lately)


def _by_version(schema: str | None) -> Select[*tuple[Any, ...]]:
    saga = in_schema(saga_instance, schema)
    return select(saga.c.name, saga.c.version, func.count()).group_by(saga.c.name, saga.c.version)


def _counted(connection: Connection, statement: Select[*tuple[Any, ...]]) -> dict[tuple[str, int], int]:
    return {(name, version): sagas for name, version, sagas in connection.execute(statement)}
