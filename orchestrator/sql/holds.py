"""Definitions that are held, and the sagas this keeps from beginning: rare statements, the same on every database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, and_, func, insert, or_, select, update

from orchestrator.holds import Hold
from orchestrator.instance import SagaStatus
from orchestrator.rising_ids import new_id
from orchestrator.sql.tables import in_schema, saga_hold, saga_instance


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be held or released, why, and who asks."""

    saga: str
    version: int | None
    reason: str
    by: str


def held(connection: Connection, schema: str | None) -> list[Hold]:
    """What is held now, the longest held first. Reads only."""
    hold = in_schema(saga_hold, schema).c
    return [Hold(*row) for row in connection.execute(_holds(schema).where(hold.released_at.is_(None)))]


def hold(connection: Connection, asked: Asked, now: datetime, schema: str | None) -> Hold | None:
    """Hold it; None if just that is held.

    Of two who ask at the same moment both may write a row: it is held all the same, and a release ends both.
    """
    if any((one.saga, one.version) == (asked.saga, asked.version) for one in held(connection, schema)):
        return None
    new = Hold(new_id(), asked.saga, asked.version, now, asked.by, asked.reason)
    row = {"id": new.id, "name": new.saga, "version": new.version, "held_at": now, "by": new.by, "reason": new.reason}
    connection.execute(insert(in_schema(saga_hold, schema)), row)
    return new


def release(connection: Connection, asked: Asked, now: datetime, schema: str | None) -> list[Hold]:
    """End the holds of a version, or all holds of a name; return them."""
    table = in_schema(saga_hold, schema)
    meant: list[ColumnElement[bool]] = [table.c.released_at.is_(None), table.c.name == asked.saga]
    if asked.version is not None:
        meant.append(table.c.version == asked.version)
    ended = [Hold(*row) for row in connection.execute(_holds(schema).where(*meant).with_for_update())]
    words = {"released_at": now, "released_by": asked.by, "release_reason": asked.reason}
    connection.execute(update(table).where(table.c.id.in_([one.id for one in ended])).values(words))
    return ended


def hold_with(connection: Connection, hold_id: UUID, schema: str | None) -> Hold:
    """One of which the id is known, also when it is over. Reads only."""
    return Hold(*connection.execute(_holds(schema).where(in_schema(saga_hold, schema).c.id == hold_id)).one())


def released_with(connection: Connection, hold_id: UUID, asked: Asked, schema: str | None) -> list[Hold]:
    """What a release ended, of which one is known: its holds have the same instant and words. Reads only."""
    hold = in_schema(saga_hold, schema).c
    instant = select(hold.released_at).where(hold.id == hold_id).scalar_subquery()
    meant: list[ColumnElement[bool]] = [hold.name == asked.saga, hold.released_at == instant]
    meant += [hold.released_by == asked.by, hold.release_reason == asked.reason]
    if asked.version is not None:
        meant.append(hold.version == asked.version)
    return [Hold(*row) for row in connection.execute(_holds(schema).where(*meant))]


def released_since(connection: Connection, saga: str, version: int, since: datetime, schema: str | None) -> bool:
    """Whether a hold that concerned this version was ended since then."""
    hold = in_schema(saga_hold, schema).c
    concerned = and_(hold.name == saga, or_(hold.version.is_(None), hold.version == version))
    return connection.execute(select(hold.id).where(concerned, hold.released_at >= since).limit(1)).first() is not None


def wake_new(
    connection: Connection,
    which: tuple[str, int | None],
    now: datetime,
    after: UUID | None,
    limit: int,
    schema: str | None,
) -> UUID | None:
    """In order of id, so that two who wait for rows never do so in a circle."""
    table = in_schema(saga_instance, schema)
    found = select(table.c.id).where(*_waiting(table.c, which)).order_by(table.c.id).limit(limit)
    if after is not None:
        found = found.where(table.c.id > after)
    ids = list(connection.scalars(found.with_for_update()))
    connection.execute(update(table).where(table.c.id.in_(ids)).values(wake_at=now))
    return ids[-1] if len(ids) == limit else None


def waiting(connection: Connection, saga: str, version: int | None, schema: str | None) -> int:
    """How many sagas have not begun, of those that a hold would concern. Reads only."""
    table = in_schema(saga_instance, schema)
    return connection.execute(select(func.count()).where(*_waiting(table.c, (saga, version)))).scalar_one()


def put_off(connection: Connection, until: Mapping[UUID, datetime], schema: str | None) -> None:
    """One statement for each instant: most have no deadline, and one alike."""
    table, at = in_schema(saga_instance, schema), defaultdict[datetime, list[UUID]](list)
    for saga_id, instant in until.items():
        at[instant].append(saga_id)
    for instant, ids in at.items():
        connection.execute(update(table).where(table.c.id.in_(ids)).values(wake_at=instant))


def _holds(schema: str | None) -> Select[*tuple[Any, ...]]:
    hold = in_schema(saga_hold, schema).c
    return select(hold.id, hold.name, hold.version, hold.held_at, hold.by, hold.reason).order_by(hold.id)


def _waiting(saga: Any, which: tuple[str, int | None]) -> list[ColumnElement[bool]]:
    """Along the index of status and name."""
    name, version = which
    new = [saga.status == SagaStatus.RUNNING.value, saga.name == name, saga.seq == 0, saga.wake_at.is_not(None)]
    of_version = [] if version is None else [saga.version == version]
    return [*new, saga.parent_id.is_(None), *of_version]
