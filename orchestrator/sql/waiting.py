"""What waits between the database and the broker, for people who look: by destination, with the sagas concerned.

However much waits, so much of each is read and no more: commands that are due first, messages that are oldest, and
waits for the resources that come first by name.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, case, func, select

from messaging.sql.tables import tables
from orchestrator.outgoing import APP_ID
from orchestrator.sql.backlog import lags, should_have_left, unmatched_since
from orchestrator.sql.planning import in_order_of_index
from orchestrator.sql.tables import in_schema, saga_lock, saga_step, saga_unmatched
from orchestrator.waiting import LateCommands, LockQueue, OutboxMessages, Unmatched, UnmatchedBrief, Waiting

MOST_READ: Final = 10_000
SAGAS_EACH: Final = 3
MOST_ROWS: Final = 50
_NEWEST: Final = 10
_HOUR: Final = timedelta(hours=1)
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NOBODY: Final[tuple[Any, Any, Any]] = (None, None, None)


def waiting(connection: Connection, now: datetime, schema: str | None) -> Waiting:
    """Read all of it."""
    with in_order_of_index(connection):
        found = lags(connection, schema=schema, now=now)
        return Waiting(
            engines=found.engines,
            command_overdue_seconds=found.command_overdue_seconds,
            outbox_oldest_seconds=found.outbox_oldest_seconds,
            commands=unsent_with_sagas(connection, now, schema, limit=MOST_ROWS),
            outbox=outbox_messages(connection, schema, limit=MOST_ROWS),
            unmatched=Unmatched(
                kept=unmatched_since(connection, _EVER, schema),
                last_hour=unmatched_since(connection, now - _HOUR, schema),
                newest=newest_unmatched(connection, schema, limit=_NEWEST),
            ),
            locks=lock_queues(connection, schema, limit=MOST_ROWS),
            counted_at_most=MOST_READ,
        )


def unsent_with_sagas(connection: Connection, now: datetime, schema: str | None, *, limit: int) -> list[LateCommands]:
    """Commands that should have left by now or were tried in vain, by participant, with the oldest sagas of each.

    The participant with the most first; at most so many.
    """
    rows = connection.execute(unsent_with_sagas_statement(now, schema).limit(limit * SAGAS_EACH)).all()
    found: list[LateCommands] = []
    for participant, alike in groupby(rows, key=lambda row: row.participant):
        first, *others = alike
        sagas = (first.saga_id, *(row.saga_id for row in others))
        found.append(LateCommands(participant, first.commands, first.started_at, first.error, sagas))
    return found[:limit]


def unsent_with_sagas_statement(now: datetime, schema: str | None) -> Select[*tuple[Any, ...]]:
    """Along the index of what is unsent."""
    step = in_schema(saga_step, schema)
    columns = (step.c.participant, step.c.saga_id, step.c.started_at, step.c.send_error)
    due = select(*columns).where(*should_have_left(now, schema)).order_by(step.c.send_after).limit(MOST_READ)
    read = due.subquery().c
    alike = read.participant
    place = func.row_number().over(partition_by=alike, order_by=(read.started_at, read.saga_id)).label("place")
    commands = func.count().over(partition_by=alike).label("commands")
    error = func.max(read.send_error).over(partition_by=alike).label("error")
    ranked = select(read.participant, read.saga_id, read.started_at, place, commands, error).subquery()
    order = (ranked.c.commands.desc(), ranked.c.participant, ranked.c.place)
    return select(ranked).where(ranked.c.place <= SAGAS_EACH).order_by(*order)


def outbox_messages(connection: Connection, schema: str | None, *, limit: int) -> list[OutboxMessages]:
    """Messages in the outbox by destination, that with the most first; at most so many destinations."""
    return [
        OutboxMessages(
            row.exchange, row.routing_key, row.messages, row.since, row.tried, row.error, saga=_as_id(row.saga)
        )
        for row in connection.execute(outbox_statement(schema).limit(limit))
    ]


def outbox_statement(schema: str | None) -> Select[*tuple[Any, ...]]:
    """Along the primary key, whose ids rise with time."""
    outbox = tables(schema).outbox
    told = (outbox.c.exchange, outbox.c.routing_key, outbox.c.created_at, outbox.c.send_attempts, outbox.c.last_error)
    of_saga = case((outbox.c.app_id == APP_ID, outbox.c.correlation_id)).label("saga")
    read = select(*told, of_saga).order_by(outbox.c.id).limit(MOST_READ).subquery().c
    counted = (
        func.count().label("messages"),
        func.min(read.created_at).label("since"),
        func.count(case((read.send_attempts > 0, 1))).label("tried"),
        func.coalesce(func.max(read.last_error), "").label("error"),
        func.min(read.saga).label("saga"),
    )
    where_to = (read.exchange, read.routing_key)
    return select(*where_to, *counted).group_by(*where_to).order_by(counted[0].desc(), *where_to)


def _as_id(text: str | None) -> UUID | None:
    """A correlation id may be anything; that of an event which a saga publishes is the saga's id."""
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def newest_unmatched(connection: Connection, schema: str | None, *, limit: int) -> list[UnmatchedBrief]:
    """Messages that fit no saga, the newest first."""
    row = in_schema(saga_unmatched, schema).c
    columns = (row.arrived_at, row.message_id, row.reason, row.saga_id)
    return [
        UnmatchedBrief(*found) for found in connection.execute(select(*columns).order_by(row.id.desc()).limit(limit))
    ]


def lock_queues(connection: Connection, schema: str | None, *, limit: int) -> list[LockQueue]:
    """Resources that sagas wait for, those with the most waiting first, and who holds each; at most so many."""
    waiting = connection.execute(waiting_for_locks_statement(schema).limit(limit * SAGAS_EACH)).all()
    holders = _holders(connection, {row.resource for row in waiting}, schema)
    found: list[LockQueue] = []
    for resource, alike in groupby(waiting, key=lambda row: row.resource):
        first, *others = alike
        sagas = (first.saga_id, *(row.saga_id for row in others))
        found.append(LockQueue(resource, first.waiting, first.asked_at, sagas, *holders.get(resource, _NOBODY)))
    return found[:limit]


def _holders(connection: Connection, resources: Collection[str], schema: str | None) -> dict[str, tuple[Any, Any, Any]]:
    """Of each resource that is held: the saga, the step, and since when."""
    lock = in_schema(saga_lock, schema).c
    columns = (lock.resource, lock.saga_id, lock.step, lock.held_since)
    held = select(*columns).where(lock.resource.in_(sorted(resources)), lock.held_since.is_not(None))
    return {resource: (saga, step, since) for resource, saga, step, since in connection.execute(held)}


def waiting_for_locks_statement(schema: str | None) -> Select[*tuple[Any, ...]]:
    """Along the index of what is asked for."""
    lock = in_schema(saga_lock, schema).c
    asked = select(lock.id, lock.resource, lock.saga_id, lock.asked_at).where(lock.held_since.is_(None))
    read = asked.order_by(lock.resource).limit(MOST_READ).subquery().c
    place = func.row_number().over(partition_by=read.resource, order_by=read.id).label("place")
    waiting = func.count().over(partition_by=read.resource).label("waiting")
    ranked = select(read.resource, read.saga_id, read.asked_at, place, waiting).subquery()
    order = (ranked.c.waiting.desc(), ranked.c.resource, ranked.c.place)
    return select(ranked).where(ranked.c.place <= SAGAS_EACH).order_by(*order)
