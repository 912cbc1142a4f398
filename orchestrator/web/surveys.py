"""Sagas as a whole: how many are where, how they have ended, what fails alike, what operators did. Reads only."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Integer, cast, column, func, select, table

from orchestrator.instance import SagaStatus
from orchestrator.sql.in_flight import in_flight
from orchestrator.sql.tables import in_schema, saga_audit, saga_instance
from orchestrator.sql.types import Id, Instant
from orchestrator.status import AuditRow

HOURS: Final = 24
MOST_FAILURES: Final = 10_000
_DIGITS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|\d+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """Where sagas of one name stand."""

    saga: str
    status: SagaStatus
    step: str
    count: int


@dataclass(frozen=True, slots=True)
class Stuck:
    """A saga that needs someone; a row of the view `saga_stuck`."""

    saga_id: UUID
    saga: str
    business_key: str | None
    step: str | None
    why: str
    since: datetime


@dataclass(frozen=True, slots=True)
class Hour:
    """How many sagas ended within an hour, by status."""

    begins: datetime
    ended: dict[str, int]


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is, at one moment."""

    places: Sequence[Place]
    stuck: Sequence[Stuck]
    """The longest first; at most a few."""
    hours: Sequence[Hour]
    """Of sagas that were started within these hours, the oldest first."""

    @property
    def live(self) -> int:
        """How many have not ended."""
        return sum(place.count for place in self.places)

    @property
    def blocked(self) -> int:
        """How many need an operator."""
        return sum(place.count for place in self.places if place.status is SagaStatus.BLOCKED)

    @property
    def compensating(self) -> int:
        """How many are turning back."""
        return sum(place.count for place in self.places if place.status is SagaStatus.COMPENSATING)


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Blocked sagas that failed alike: the same saga, step, reason and error, numbers and ids aside."""

    id: str
    saga: str
    step: str
    reason: str
    error_code: str
    error_text: str
    """Of the newest of them."""
    count: int
    first: datetime
    last: datetime
    saga_ids: Sequence[UUID]


def survey(connection: Connection, hours: Sequence[Hour], *, stuck: int = 10, schema: str | None = None) -> Survey:
    """Read how things stand; how sagas have ended is read more seldom, and given."""
    counts = Counter[tuple[str, SagaStatus, str]]()
    for one in in_flight(connection, schema=schema):
        counts[one.pin.name, one.status, one.current_step] += one.count
    places = [Place(*place, count) for place, count in counts.most_common()]
    return Survey(places, _stuck(connection, stuck, schema), hours)


def _stuck(connection: Connection, limit: int, schema: str | None) -> list[Stuck]:
    names = ("saga", "business_key", "step", "why")
    view = table("saga_stuck", column("saga_id", Id()), *map(column, names), column("since", Instant()), schema=schema)
    return [Stuck(*row) for row in connection.execute(select(view).order_by(view.c.since).limit(limit))]


def ended_by_hour(connection: Connection, *, now: datetime, schema: str | None = None) -> list[Hour]:
    """Count how sagas ended in each of the last hours, of those that were started within them.

    Looks at each of a day's sagas.
    """
    saga = in_schema(saga_instance, schema).c
    first = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS - 1)
    hour = _hour(connection, saga.ended_at).label("hour")
    statement = (
        select(hour, saga.status, func.count())
        .where(saga.id >= earliest_id(first), saga.ended_at >= first)
        .group_by(hour, saga.status)
    )
    ended: dict[int, dict[str, int]] = {}
    for number, status, count in connection.execute(statement):
        ended.setdefault(number, {})[status] = count
    begun = [first + timedelta(hours=number) for number in range(HOURS)]
    return [Hour(at, ended.get(int(at.timestamp()) // 3600, {})) for at in begun]


def _hour(connection: Connection, instant: Any) -> Any:
    """The number of the hour since 1970: far cheaper for a database than its name."""
    if connection.dialect.name == "postgresql":
        return cast(func.floor(func.extract("epoch", instant) / 3600), Integer)
    return cast(func.strftime("%s", instant), Integer) // 3600


def earliest_id(instant: datetime) -> UUID:
    """The least id of a saga that was started then: ids rise with time."""
    milliseconds = int(instant.astimezone(UTC).timestamp() * 1000)
    return UUID(bytes=milliseconds.to_bytes(6, "big") + bytes(10))


def failures(connection: Connection, *, schema: str | None = None) -> list[FailureGroup]:
    """Group the blocked sagas by what went wrong, the largest group first; the newest `MOST_FAILURES` are looked at."""
    texts = ("status", "saga", "blocked_step", "blocked_reason", "error_code", "error_text")
    instants = (column(name, Instant()) for name in ("waiting_since", "updated_at"))
    view = table("saga_status", column("saga_id", Id()), *map(column, texts), *instants, schema=schema).c
    statement = (
        select(view.saga, view.blocked_step, view.blocked_reason, view.error_code, view.error_text)
        .add_columns(view.saga_id, func.coalesce(view.waiting_since, view.updated_at), view.updated_at)
        .where(view.status == SagaStatus.BLOCKED.value)
        .order_by(view.saga_id.desc())
        .limit(MOST_FAILURES)
    )
    rows = sorted((_Blocked(*row) for row in connection.execute(statement)), key=_kind)
    groups = [_group(kind, list(alike)) for kind, alike in groupby(rows, key=_kind)]
    return sorted(groups, key=lambda one: -one.count)


@dataclass(frozen=True, slots=True)
class _Blocked:
    saga: str
    step: str | None
    reason: str | None
    error_code: str | None
    error_text: str | None
    saga_id: UUID
    since: datetime
    updated_at: datetime


def _kind(row: _Blocked) -> tuple[str, str, str, str, str]:
    text = _DIGITS.sub("#", (row.error_text or "")[:500])
    return row.saga, row.step or "", row.reason or "", row.error_code or "", text


def _group(kind: tuple[str, str, str, str, str], rows: list[_Blocked]) -> FailureGroup:
    saga, step, reason, code, _ = kind
    since = [row.since for row in rows]
    text = max(rows, key=lambda row: row.updated_at).error_text or ""
    group_id = hashlib.sha256("\0".join(kind).encode()).hexdigest()[:16]
    ids = [row.saga_id for row in rows]
    return FailureGroup(group_id, saga, step, reason, code, text, len(rows), min(since), max(since), ids)


def audits(connection: Connection, *, after: UUID | None, limit: int, schema: str | None = None) -> list[AuditRow]:
    """What operators asked of any saga, the newest first; `after` is the last id of the page before."""
    audit = in_schema(saga_audit, schema)
    columns = [audit.c[name] for name in AuditRow.__dataclass_fields__]
    statement = select(*columns).order_by(audit.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(audit.c.id < after)
    return [AuditRow(*row) for row in connection.execute(statement)]


def saga_names(connection: Connection, *, schema: str | None = None) -> list[str]:
    """The names of the sagas there are; skips along the index from one to the next."""
    return list(_names(connection, schema))


def _names(connection: Connection, schema: str | None) -> Iterator[str]:
    name, last = in_schema(saga_instance, schema).c.name, ""
    while (found := connection.scalar(select(func.min(name)).where(name > last))) is not None:
        yield found
        last = found
