"""Where sagas are: typed rows of the documented views. Reads only, locks nothing, knows no engine.

The functions run on a blocking connection; `StatusReader` is the same for coroutines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Concatenate, Final, ParamSpec, TypeVar
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Select, TableClause, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from orchestrator.errors import SagaPurged, UnknownSaga
from orchestrator.instance import Direction, SagaStatus, StepStatus
from orchestrator.searchable import SearchValue, asked
from orchestrator.sql.search import Found, condition, how_found
from orchestrator.sql.tables import in_schema, saga_audit, saga_history, saga_key, saga_step
from orchestrator.views import ViewRow, named_view, read_view

P = ParamSpec("P")
R = TypeVar("R", "HistoryRow", "AuditRow")
T = TypeVar("T")
V = TypeVar("V", bound=ViewRow)


@dataclass(frozen=True, slots=True)
class SagaRow:
    """One row of the view `saga_status`: where a saga is, what it waits for, what failed first."""

    saga_id: UUID
    saga: str
    version: int
    business_key: str | None
    status: SagaStatus
    current_step: str | None
    waiting_for: str | None
    waiting_since: datetime | None
    attempt: int | None
    next_wake_at: datetime | None
    failed_step: str | None
    error_code: str | None
    error_text: str | None
    blocked_reason: str | None
    blocked_step: str | None
    paused_at: datetime | None
    started_at: datetime
    updated_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """One row of the view `saga_timeline`: one direction of one step."""

    saga_id: UUID
    seq: int
    step: str
    direction: Direction
    branch: str
    status: StepStatus
    participant: str | None
    message: str | None
    round: int
    attempt: int
    sent_at: datetime | None
    deadline: datetime | None
    error_code: str | None
    error_text: str | None
    send_error: str | None
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class HistoryRow(ViewRow):
    """Something that happened beside the plain path."""

    view: ClassVar[str] = "saga_history"
    rises_with: ClassVar[str] = "id"
    id: UUID
    saga_id: UUID
    at: datetime
    kind: str
    step: str
    text: str


@dataclass(frozen=True, slots=True)
class AuditRow(ViewRow):
    """What an operator asked for, and what became of it; `refused` says why nothing did."""

    view: ClassVar[str] = "saga_audit"
    rises_with: ClassVar[str] = "id"
    id: UUID
    saga_id: UUID
    at: datetime
    action: str
    by: str
    reason: str
    before: str
    after: str
    refused: str
    signal_id: UUID | None


@dataclass(frozen=True, slots=True)
class SagaFilter:
    """Which sagas to list; what is None does not matter. All of it must be so."""

    saga: str | None = None
    status: SagaStatus | None = None
    key: str | None = None
    step: str | None = None
    """Something is awaited from this step, or it blocks the saga."""
    error: str | None = None
    """The code of what turned it back, or of what blocks it."""
    ended: bool | None = None
    paused: bool | None = None
    started_before: datetime | None = None
    where: Mapping[str, SearchValue] = field(default_factory=dict[str, SearchValue])
    """What the state has at a path: `{"customer": "c-17", "address.city": "Bonn"}`."""
    definitions: Collection[tuple[str, int]] | None = None
    """Only sagas of these names and versions."""


EVERYTHING: Final = SagaFilter()
_ENDED: Final = [status.value for status in SagaStatus if status.terminal]
_OPEN: Final = [status.value for status in StepStatus if status.open]


def get_saga(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> SagaRow | None:
    """One saga; None if there is none."""
    view = named_view("saga_status", SagaRow, schema)
    row = connection.execute(select(view).where(view.c.saga_id == saga_id)).one_or_none()
    return None if row is None else _saga(row)


def missing(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> UnknownSaga:
    """What to raise where there is no saga of this id: `SagaPurged`, if one with a key was there."""
    key = in_schema(saga_key, schema).c
    columns = (key.name, key.business_key, key.ended_as, key.purged_at)
    gone = select(*columns).where(key.saga_id == saga_id, key.purged_at.is_not(None))
    row = connection.execute(gone).first()
    return UnknownSaga(saga_id) if row is None else SagaPurged(saga_id, *row)


def list_sagas(
    connection: Connection,
    which: SagaFilter = EVERYTHING,
    *,
    after: UUID | None = None,
    limit: int = 100,
    schema: str | None = None,
) -> list[SagaRow]:
    """One page, the newest first; `after` is the last id of the page before."""
    view = named_view("saga_status", SagaRow, schema)
    statement = _filtered(connection, select(view), view, which, schema).order_by(view.c.saga_id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(view.c.saga_id < after)
    return [_saga(row) for row in connection.execute(statement)]


def ids_of(
    connection: Connection, which: SagaFilter = EVERYTHING, *, limit: int | None = None, schema: str | None = None
) -> list[UUID]:
    """The ids of all of them at one moment, the oldest first; at most so many."""
    view = named_view("saga_status", SagaRow, schema)
    statement = _filtered(connection, select(view.c.saga_id), view, which, schema)
    return list(connection.scalars(statement.order_by(view.c.saga_id).limit(limit)))


def scanned(connection: Connection, which: SagaFilter, *, schema: str | None = None) -> list[Found]:
    """The paths for which states have to be read, one after the other, to tell which sagas are meant."""
    found = (how_found(connection, path, which.saga, schema) for path in which.where)
    return [one for one in found if not one.by_index]


def timeline_of(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> list[TimelineRow]:
    """What a saga did, in order."""
    view = named_view("saga_timeline", TimelineRow, schema)
    statement = select(view).where(view.c.saga_id == saga_id).order_by(view.c.seq, view.c.branch)
    return [_step(row) for row in connection.execute(statement)]


def history_of(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> list[HistoryRow]:
    """What happened to a saga beside the plain path, in order."""
    return _rows(connection, HistoryRow, in_schema(saga_history, schema), saga_id)


def audit_of(connection: Connection, saga_id: UUID, *, schema: str | None = None) -> list[AuditRow]:
    """What operators asked of a saga, in order."""
    return _rows(connection, AuditRow, in_schema(saga_audit, schema), saga_id)


def answer_to(connection: Connection, signal_id: UUID, *, schema: str | None = None) -> AuditRow | None:
    """What became of an operator's signal; None while no engine has taken it."""
    audit = in_schema(saga_audit, schema)
    statement = select(*(audit.c[one.name] for one in fields(AuditRow))).where(audit.c.signal_id == signal_id)
    row = connection.execute(statement.order_by(audit.c.id).limit(1)).one_or_none()
    return None if row is None else AuditRow(*row)


class StatusReader:
    """The same for coroutines, on connections of an engine (such as `SqlStore.engine`)."""

    def __init__(self, engine: AsyncEngine, *, schema: str | None = None) -> None:
        self._engine, self.schema = engine, schema

    async def get(self, saga_id: UUID) -> SagaRow | None:
        """One saga; None if there is none."""
        return await self.read(get_saga, saga_id, schema=self.schema)

    async def missing(self, saga_id: UUID) -> UnknownSaga:
        """What to raise where there is no saga of this id."""
        return await self.read(missing, saga_id, schema=self.schema)

    async def list(
        self, which: SagaFilter = EVERYTHING, *, after: UUID | None = None, page_size: int = 100
    ) -> AsyncIterator[SagaRow]:
        """All of them, the newest first, a page at a time; each page is read in a transaction of its own.

        `after` is an id: only those that come after it in this order.
        """
        while True:
            page = await self.read(list_sagas, which, after=after, limit=page_size, schema=self.schema)
            for row in page:
                yield row
            if len(page) < page_size:
                return
            after = page[-1].saga_id

    async def scanned(self, which: SagaFilter) -> Sequence[Found]:
        """The paths for which states have to be read; see `scanned`."""
        return await self.read(scanned, which, schema=self.schema)

    async def timeline(self, saga_id: UUID) -> Sequence[TimelineRow]:
        """What a saga did, in order."""
        return await self.read(timeline_of, saga_id, schema=self.schema)

    async def history(self, saga_id: UUID) -> Sequence[HistoryRow]:
        """What happened to a saga beside the plain path, in order."""
        return await self.read(history_of, saga_id, schema=self.schema)

    async def audit(self, saga_id: UUID) -> Sequence[AuditRow]:
        """What operators asked of a saga, in order."""
        return await self.read(audit_of, saga_id, schema=self.schema)

    async def answer(self, signal_id: UUID) -> AuditRow | None:
        """What became of an operator's signal; None while no engine has taken it."""
        return await self.read(answer_to, signal_id, schema=self.schema)

    async def rows(
        self, row: type[V], *where: ColumnElement[bool], limit: int = 100, newest_first: bool = False
    ) -> Sequence[V]:
        """The rows of a view, such as `StuckRow`; see `views.read_view`."""
        return await self.read(read_view, row, *where, limit=limit, newest_first=newest_first, schema=self.schema)

    async def read(self, call: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function of this kind on a connection, in a transaction of its own."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(call, *args, **kwargs)


def _filtered(
    connection: Connection, statement: Select[Any], view: TableClause, which: SagaFilter, schema: str | None
) -> Select[Any]:
    if which.saga is not None:
        statement = statement.where(view.c.saga == which.saga)
    if which.status is not None:
        statement = statement.where(view.c.status == which.status.value)
    if which.key is not None:
        statement = statement.where(view.c.business_key == which.key)
    if which.error is not None:
        statement = statement.where(view.c.error_code == which.error)
    if which.ended is not None:
        statement = statement.where(view.c.status.in_(_ENDED) if which.ended else view.c.status.not_in(_ENDED))
    if which.paused is not None:
        statement = statement.where(view.c.paused_at.is_not(None) if which.paused else view.c.paused_at.is_(None))
    if which.started_before is not None:
        statement = statement.where(view.c.started_at < which.started_before)
    if which.definitions is not None:
        statement = statement.where(tuple_(view.c.saga, view.c.version).in_(which.definitions))
    for path, wanted in asked(which.where).items():
        found, dialect = how_found(connection, path, which.saga, schema), connection.dialect.name
        statement = statement.where(condition(view.c.saga_id, found, wanted, dialect, schema))
    if which.step is not None:
        step = in_schema(saga_step, schema)
        awaited = select(step.c.saga_id).where(
            step.c.saga_id == view.c.saga_id, step.c.step == which.step, step.c.status.in_(_OPEN)
        )
        statement = statement.where(or_(awaited.exists(), view.c.blocked_step == which.step))
    return statement


def _saga(row: Iterable[Any]) -> SagaRow:
    values = list(row)
    values[4] = SagaStatus(values[4])
    return SagaRow(*values)


def _step(row: Iterable[Any]) -> TimelineRow:
    values = list(row)
    values[3], values[5] = Direction(values[3]), StepStatus(values[5])
    return TimelineRow(*values)


def _rows(connection: Connection, row: type[R], source: Any, saga_id: UUID) -> list[R]:
    columns = (source.c[one.name] for one in fields(row))
    statement = select(*columns).where(source.c.saga_id == saga_id).order_by(source.c.id)
    return [row(*found) for found in connection.execute(statement)]
