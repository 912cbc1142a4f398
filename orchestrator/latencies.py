"""How long sagas and their steps take, as histograms the database counts. Reads only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, case, func, select

from orchestrator.ids import earliest_id
from orchestrator.views import LatencyRow, view_of

BOUNDS: Final = tuple(factor * 10.0**power for power in range(-3, 6) for factor in (1, 2, 5))
"""Upper bounds in seconds: a millisecond to six days, three a decade."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the sagas of one name took that ended, or one direction of one step."""

    saga: str
    step: str
    """Empty: the saga as a whole."""
    direction: str
    count: int
    mean: float
    """Seconds, as all of these are."""
    longest: float
    buckets: Sequence[tuple[float, int]]
    """Upper bound and how many took so long at most, and longer than the bound before; without empty ones."""

    def percentile(self, share: float) -> float:
        """The bound within which this share of them (0 to 1) ended; the longest, if that is less."""
        seen = 0
        for bound, count in self.buckets:
            seen += count
            if seen >= share * self.count:
                return min(bound, self.longest)
        return self.longest


def latencies(
    connection: Connection,
    *,
    saga: str | None = None,
    steps: bool = False,
    since: datetime | None = None,
    schema: str | None = None,
) -> list[Latency]:
    """Histograms by saga, or by saga, step and direction with `steps`; of sagas started since then.

    The database looks at each of these sagas once.
    """
    view = view_of(LatencyRow, schema).c
    bucket = case(*((view.seconds <= bound, number) for number, bound in enumerate(BOUNDS)), else_=len(BOUNDS))
    key = (view.saga, view.step, view.direction)
    statement = (
        select(*key, bucket.label("bucket"), func.count(), func.sum(view.seconds), func.max(view.seconds))
        .where(view.step != "" if steps else view.step == "")
        .group_by(*key, "bucket")
        .order_by(*key, "bucket")
    )
    if saga is not None:
        statement = statement.where(view.saga == saga)
    if since is not None:
        statement = statement.where(view.saga_id >= earliest_id(since))
    rows: list[tuple[Any, ...]] = [tuple(row) for row in connection.execute(statement)]
    return [_latency(of, list(alike)) for of, alike in groupby(rows, key=lambda row: (row[0], row[1], row[2]))]


def slowest(connection: Connection, *, since: datetime | None = None, schema: str | None = None) -> dict[str, UUID]:
    """The saga of each name that took longest, of those that have ended and were started since then."""
    view = view_of(LatencyRow, schema).c
    place = func.row_number().over(partition_by=view.saga, order_by=(view.seconds.desc(), view.saga_id))
    ranked = select(view.saga, view.saga_id, place.label("place")).where(view.step == "")
    if since is not None:
        ranked = ranked.where(view.saga_id >= earliest_id(since))
    found = ranked.subquery().c
    return {
        row.saga: row.saga_id for row in connection.execute(select(found.saga, found.saga_id).where(found.place == 1))
    }


def _latency(of: tuple[str, str, str], rows: Sequence[tuple[Any, ...]]) -> Latency:
    count = sum(row[4] for row in rows)
    longest = max(row[6] for row in rows)
    buckets: list[tuple[float, int]] = [((*BOUNDS, longest)[row[3]], row[4]) for row in rows]
    return Latency(*of, count, sum(row[5] for row in rows) / count, longest, buckets)
