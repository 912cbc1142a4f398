"""Rows of the documented views that are about more than one saga, each as a class; reads only.

`saga_status`, `saga_timeline`, `saga_history` and `saga_audit` are in `status.py`, with what filters them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from functools import lru_cache
from typing import Any, ClassVar, Final, TypeVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Integer,
    LargeBinary,
    TableClause,
    Text,
    column,
    select,
    table,
    tuple_,
)

from orchestrator.sql.types import Id, Instant

_TYPES: Final[dict[str, Any]] = {
    **dict.fromkeys(("id", "saga_id", "held_by", "dead_letter_id", "signal_id"), Id),
    **dict.fromkeys(("version", "attempt", "seq", "round", "revision", "position"), Integer),
    **dict.fromkeys(("since", "waiting_since", "held_since", "next_wake_at", "paused_at", "dead_at", "at"), Instant),
    "arrived_at": Instant,
    **dict.fromkeys(("started_at", "updated_at", "ended_at", "sent_at", "deadline"), Instant),
    "seconds": Float,
    "body": LargeBinary,
}


class ViewRow:
    """A row of a view: its fields are the view's columns."""

    __slots__ = ()
    view: ClassVar[str]
    rises_with: ClassVar[str]
    """The column that says when, or an id that does: rows are read by it."""


R = TypeVar("R", bound=ViewRow)


@dataclass(frozen=True, slots=True)
class StuckRow(ViewRow):
    """A saga that needs someone, and why."""

    view: ClassVar[str] = "saga_stuck"
    rises_with: ClassVar[str] = "since"
    saga_id: UUID
    saga: str
    business_key: str | None
    status: str
    step: str | None
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class FailedRow(ViewRow):
    """A saga that turned back, is blocked or was given up, with what went wrong first."""

    view: ClassVar[str] = "saga_failed"
    rises_with: ClassVar[str] = "since"
    saga_id: UUID
    saga: str
    version: int
    business_key: str | None
    status: str
    failed_step: str | None
    error_code: str | None
    error_text: str | None
    blocked_reason: str | None
    blocked_step: str | None
    since: datetime
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class LatencyRow(ViewRow):
    """How long an ended saga took (`step` is empty), or one direction of one of its steps."""

    view: ClassVar[str] = "saga_latency"
    rises_with: ClassVar[str] = "ended_at"
    saga_id: UUID
    saga: str
    version: int
    step: str
    direction: str
    status: str
    started_at: datetime
    ended_at: datetime
    seconds: float


@dataclass(frozen=True, slots=True)
class LockWaitRow(ViewRow):
    """A saga that waits for a resource, and who holds it; nobody if it waits for its turn."""

    view: ClassVar[str] = "saga_lock_wait"
    rises_with: ClassVar[str] = "waiting_since"
    saga_id: UUID
    saga: str
    business_key: str | None
    step: str
    resource: str
    waiting_since: datetime
    held_by: UUID | None
    held_by_step: str | None
    held_since: datetime | None


@dataclass(frozen=True, slots=True)
class DeadLetterRow(ViewRow):
    """A message nobody could use, where the broker is memory; RabbitMQ and Redis keep their own."""

    view: ClassVar[str] = "saga_dead_letter"
    rises_with: ClassVar[str] = "dead_at"
    dead_letter_id: UUID
    queue: str
    dead_at: datetime
    reason: str
    detail: str
    message: str
    message_id: str
    correlation_id: str


@dataclass(frozen=True, slots=True)
class UnmatchedRow(ViewRow):
    """A message that fits no saga, whole, and why it fits none; its secrets are not taken out."""

    view: ClassVar[str] = "saga_unmatched"
    rises_with: ClassVar[str] = "id"
    id: UUID
    arrived_at: datetime
    message_id: str
    reason: str
    saga_id: UUID | None
    properties: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StateRow(ViewRow):
    """A state as it was, of a saga whose definition keeps them: JSON text, secrets included."""

    view: ClassVar[str] = "saga_state_history"
    rises_with: ClassVar[str] = "at"
    saga_id: UUID
    saga: str
    business_key: str | None
    version: int
    revision: int
    position: int
    step: str
    direction: str
    branch: str
    cause: str
    state: str
    at: datetime


def view_of(row: type[ViewRow], schema: str | None) -> TableClause:
    """A view, as statements name it; its columns have the types of both databases."""
    fields_of: Any = row
    return named_view(row.view, fields_of, schema)


@lru_cache
def named_view(name: str, row: Any, schema: str | None) -> TableClause:
    """A view with a column for each field of a dataclass, the same one each time."""
    columns = [column(one.name, _TYPES.get(one.name, Text)()) for one in fields(row)]
    return table(name, *columns) if schema is None else table(name, *columns, schema=schema)


def read_view(
    connection: Connection,
    row: type[R],
    *where: ColumnElement[bool],
    limit: int = 100,
    newest_first: bool = False,
    schema: str | None = None,
) -> list[R]:
    """The rows of a view, the oldest first unless asked otherwise; at most so many.

    `row` is the class of the rows, such as `StuckRow`; `where` are conditions on columns of `view_of(row, schema)`.
    """
    view = view_of(row, schema)
    when = view.c[row.rises_with]
    statement = select(view).where(*where).order_by(when.desc() if newest_first else when).limit(limit)
    return [row(*found) for found in connection.execute(statement)]


def states_of(
    connection: Connection,
    saga_id: UUID,
    *,
    since: tuple[int, int] = (0, 0),
    limit: int | None = None,
    schema: str | None = None,
) -> list[StateRow]:
    """The states that a saga has had, in order, from this revision and position on; at most so many, secrets included.

    Empty if its definition does not keep them (`Saga.keep_states`), or there is no such saga.
    """
    view = view_of(StateRow, schema)
    place = (view.c.revision, view.c.position)
    statement = select(view).where(view.c.saga_id == saga_id, tuple_(*place) >= since).order_by(*place).limit(limit)
    return [StateRow(*found) for found in connection.execute(statement)]


ROWS: Final[Sequence[type[ViewRow]]] = (
    *(StuckRow, FailedRow, LatencyRow, LockWaitRow),
    *(DeadLetterRow, UnmatchedRow, StateRow),
)
"""The views that have a class here."""
