"""Sagas as a whole: how many are where, how they have ended, what operators did. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Integer, cast, func, select

from orchestrator.ids import earliest_id
from orchestrator.instance import SagaStatus
from orchestrator.latencies import Latency, latencies, slowest
from orchestrator.sql.in_flight import in_flight
from orchestrator.sql.tables import in_schema, saga_audit, saga_instance
from orchestrator.status import AuditRow
from orchestrator.views import StuckRow, read_view

HOURS: Final = 24


@dataclass(frozen=True, slots=True)
class Place:
    """Where sagas of one name stand."""

    saga: str
    status: SagaStatus
    step: str
    count: int


@dataclass(frozen=True, slots=True)
class Hour:
    """How many sagas ended within an hour, by status."""

    begins: datetime
    ended: dict[str, int]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long sagas took that were started within the last hours and have ended."""

    latencies: Sequence[Latency]
    slowest: Mapping[str, UUID]
    """Of each name one that took longest."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is, at one moment."""

    places: Sequence[Place]
    stuck: Sequence[StuckRow]
    """The longest first; at most a few."""
    hours: Sequence[Hour]
    """Of sagas that were started within these hours, the oldest first."""
    pace: Pace
    """Of the same sagas."""

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


def survey(
    connection: Connection, hours: Sequence[Hour], pace: Pace, *, stuck: int = 10, schema: str | None = None
) -> Survey:
    """Read how things stand; how sagas have ended, and how fast, is read more seldom, and given."""
    counts = Counter[tuple[str, SagaStatus, str]]()
    for one in in_flight(connection, schema=schema):
        counts[one.pin.name, one.status, one.current_step] += one.count
    places = [Place(*place, count) for place, count in counts.most_common()]
    return Survey(places, read_view(connection, StuckRow, limit=stuck, schema=schema), hours, pace)


def pace_of(connection: Connection, *, now: datetime, schema: str | None = None) -> Pace:
    """Count how long sagas took. Looks at each of a day's sagas and steps, twice."""
    since = now - timedelta(hours=HOURS)
    return Pace(latencies(connection, since=since, schema=schema), slowest(connection, since=since, schema=schema))


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


def audits(connection: Connection, *, after: UUID | None, limit: int, schema: str | None = None) -> list[AuditRow]:
    """What operators asked of any saga, the newest first; `after` is the last id of the page before."""
    audit = in_schema(saga_audit, schema)
    columns = [audit.c[one.name] for one in fields(AuditRow)]
    statement = select(*columns).order_by(audit.c.id.desc()).limit(limit)
    if after is not None:
        statement = statement.where(audit.c.id < after)
    return [AuditRow(*row) for row in connection.execute(statement)]
