"""One action on many sagas: their ids frozen, asked a few at a time, with one result each.

All of it is in the database: whichever process answers HTTP there goes on with what another left. A few sagas are
claimed by moving the bulk's next instant, so several processes ask no faster than one, and none asks twice.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Row, case, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import UnknownSaga
from orchestrator.ids import new_saga_id
from orchestrator.sql.client_statements import ask
from orchestrator.sql.tables import in_schema, saga_audit, saga_bulk, saga_bulk_item
from orchestrator.web.asking import Once, Wish, keep_result, result_of, row_of
from orchestrator.web.database import Database
from orchestrator.web.problems import Problem

logger = logging.getLogger(__name__)

TICK: Final = timedelta(seconds=0.25)
_AFTER_TROUBLE_SECONDS: Final = 2.0
_WRITTEN_AT_ONCE: Final = 1000


class Outcome(StrEnum):
    """What became of one saga of a bulk."""

    WAITING = "waiting"
    """It has not been asked yet."""
    ASKED = "asked"
    """No engine has answered yet."""
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    """It could not be asked."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """A bulk with its progress."""

    id: UUID
    action: str
    reason: str
    by: str
    per_second: int
    total: int
    created_at: datetime
    stopped_at: datetime | None
    waiting: int
    asked: int
    done: int
    refused: int
    failed: int

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.asked == 0 and (self.waiting == 0 or self.stopped_at is not None)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one saga; `text` says why it was refused, or could not be asked."""

    position: int
    saga_id: UUID
    outcome: Outcome
    text: str


def begin(
    connection: Connection,
    wish: Wish,
    meant: Callable[[], Sequence[UUID]],
    once: Once,
    *,
    per_second: int,
    schema: str | None,
) -> UUID:
    """Write it down with the ids that are meant now, unless the request has come before; returns the bulk's id.

    Raises:
        Problem: the idempotency key belongs to another request.
    """
    known = result_of(connection, once, schema)
    if known is not None:
        return known
    ids = list(dict.fromkeys(meant()))
    now, bulk_id = datetime.now(UTC), new_saga_id()
    values = {"id": bulk_id, "action": wish.action, "reason": wish.reason, "by": wish.by, "created_at": now}
    pace = {"per_second": per_second, "total": len(ids), "next_at": now}
    connection.execute(insert(in_schema(saga_bulk, schema)), values | pace)
    for first in range(0, len(ids), _WRITTEN_AT_ONCE):
        some = enumerate(ids[first : first + _WRITTEN_AT_ONCE], start=first)
        rows = [{"bulk_id": bulk_id, "position": position, "saga_id": one} for position, one in some]
        connection.execute(insert(in_schema(saga_bulk_item, schema)), rows)
    keep_result(connection, once, bulk_id, schema)
    return bulk_id


def stop(connection: Connection, bulk_id: UUID, schema: str | None) -> None:
    """Ask no further saga; those that are asked get their answers."""
    bulk = in_schema(saga_bulk, schema)
    only_open = (bulk.c.id == bulk_id, bulk.c.next_at.is_not(None))
    connection.execute(update(bulk).where(*only_open).values(next_at=None, stopped_at=datetime.now(UTC)))


def ask_some(connection: Connection, schema: str | None, *, now: datetime) -> datetime | None:
    """Ask the next few sagas of the bulk that is due first; returns when something is due again, None if never."""
    bulk = in_schema(saga_bulk, schema)
    due = select(bulk).where(bulk.c.next_at.is_not(None)).order_by(bulk.c.next_at).limit(1)
    row = connection.execute(due).one_or_none()
    if row is None or row.next_at > now:
        return None if row is None else row.next_at
    room = max(1, math.floor(row.per_second * TICK.total_seconds()))
    again = now + timedelta(seconds=room / row.per_second)
    claimed = update(bulk).where(bulk.c.id == row.id, bulk.c.next_at == row.next_at).values(next_at=again)
    if connection.execute(claimed).rowcount and not _ask_next(connection, row, room, schema):
        connection.execute(update(bulk).where(bulk.c.id == row.id).values(next_at=None))
    return now


def _ask_next(connection: Connection, bulk: Row[Any], room: int, schema: str | None) -> bool:
    """Ask at most so many; whether some are left."""
    item = in_schema(saga_bulk_item, schema)
    unasked = (item.c.bulk_id == bulk.id, item.c.signal_id.is_(None), item.c.error == "")
    statement = select(item.c.position, item.c.saga_id).where(*unasked).order_by(item.c.position).limit(room + 1)
    rows = connection.execute(statement).all()
    chosen = {saga_id: position for position, saga_id in rows[:room]}
    wish = Wish(bulk.action, bulk.reason, bulk.by)
    for saga_id, signal_id in ask(connection, list(chosen), *row_of(wish.asked()), schema).items():
        values = {"signal_id": signal_id} if signal_id else {"error": str(UnknownSaga(saga_id))}
        this = (item.c.bulk_id == bulk.id, item.c.position == chosen[saga_id])
        connection.execute(update(item).where(*this).values(values))
    return len(rows) > room


def get_bulk(connection: Connection, bulk_id: UUID, schema: str | None) -> Bulk:
    """Read one with its progress.

    Raises:
        Problem: there is none.
    """
    bulk = in_schema(saga_bulk, schema)
    row = connection.execute(select(bulk).where(bulk.c.id == bulk_id)).one_or_none()
    if row is None:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-bulk", f"no bulk action has the id {bulk_id}")
    return _with_progress(connection, row, schema)


def list_bulks(connection: Connection, *, limit: int, schema: str | None) -> list[Bulk]:
    """The newest, each with its progress."""
    bulk = in_schema(saga_bulk, schema)
    rows = connection.execute(select(bulk).order_by(bulk.c.id.desc()).limit(limit)).all()
    return [_with_progress(connection, row, schema) for row in rows]


def _with_progress(connection: Connection, row: Row[Any], schema: str | None) -> Bulk:
    item, audit = in_schema(saga_bulk_item, schema), in_schema(saga_audit, schema)
    outcome = _outcome(item, audit).label("outcome")
    joined = item.outerjoin(audit, audit.c.signal_id == item.c.signal_id)
    statement = (
        select(outcome, func.count().label("sagas"))
        .select_from(joined)
        .where(item.c.bulk_id == row.id)
        .group_by(outcome)
    )
    counts = {row.outcome: row.sagas for row in connection.execute(statement)}
    told = (row.id, row.action, row.reason, row.by, row.per_second, row.total, row.created_at, row.stopped_at)
    return Bulk(*told, *(counts.get(one.value, 0) for one in Outcome))


def results(
    connection: Connection, bulk_id: UUID, *, after: int, limit: int, only: Outcome | None = None, schema: str | None
) -> list[Result]:
    """What became of each, in order; `after` is the last position of the page before."""
    item, audit = in_schema(saga_bulk_item, schema), in_schema(saga_audit, schema)
    outcome = _outcome(item, audit)
    text = func.coalesce(func.nullif(item.c.error, ""), audit.c.refused, "")
    statement = (
        select(item.c.position, item.c.saga_id, outcome, text)
        .select_from(item.outerjoin(audit, audit.c.signal_id == item.c.signal_id))
        .where(item.c.bulk_id == bulk_id, item.c.position > after)
        .order_by(item.c.position)
        .limit(limit)
    )
    if only is not None:
        statement = statement.where(outcome == only.value)
    return [Result(place, one, Outcome(word), said) for place, one, word, said in connection.execute(statement)]


def _outcome(item: Any, audit: Any) -> Any:
    return case(
        (item.c.error != "", Outcome.FAILED.value),
        (item.c.signal_id.is_(None), Outcome.WAITING.value),
        (audit.c.id.is_(None), Outcome.ASKED.value),
        (audit.c.refused != "", Outcome.REFUSED.value),
        else_=Outcome.DONE.value,
    )


class BulkRunner:
    """Goes on with whatever bulk is open, in a task that ends when none is.

    Args:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None

    def ensure(self) -> None:
        """See to it that the task runs if there may be something to do."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="bulk actions")

    async def stop(self) -> None:
        """End the task; what is left goes on in another process, or in the next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                due = await self._database.write(lambda c: ask_some(c, self._database.schema, now=datetime.now(UTC)))
            except (SQLAlchemyError, OSError) as error:
                logger.warning("Bulk actions wait for the database: %s", getattr(error, "orig", error))
                await asyncio.sleep(_AFTER_TROUBLE_SECONDS)
                continue
            if due is None:
                return
            await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
