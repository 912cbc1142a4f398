"""The items of `ForEach` steps: written once, then read a few at a time together with their rows.

Two statements for a batch in which some saga stands in a `ForEach`; none for others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, bindparam, insert, or_, select, tuple_

from orchestrator.instance import Direction, Item, SagaInstance, StepRecord
from orchestrator.roster import Wanted, wanted
from orchestrator.signals import Decision
from orchestrator.sql.rows import STEP_COLUMNS, record_of
from orchestrator.sql.tables import in_schema, saga_item, saga_step


def write_items(connection: Connection, decisions: Sequence[Decision], schema: str | None) -> None:
    """Insert the items that these decisions froze, in one statement."""
    rows = [
        {
            "saga_id": decision.instance.id,
            "step": item.step,
            "position": item.position,
            "key": item.key,
            "item": item.text,
        }
        for decision in decisions
        for item in decision.items
    ]
    if rows:
        connection.execute(insert(in_schema(saga_item, schema)), rows)


def with_items(
    connection: Connection, sagas: dict[UUID, SagaInstance], schema: str | None = None
) -> dict[UUID, SagaInstance]:
    """The same sagas, with the items that are under way or next, and their records."""
    needed = {saga.id: found for saga in sagas.values() if (found := wanted(saga.steps.values()))}
    if not needed:
        return sagas
    items = _items(connection, needed, schema)
    records = _records(connection, _rows_of(needed, items), schema)
    return {saga_id: _completed(saga, items.get(saga_id), records.get(saga_id)) for saga_id, saga in sagas.items()}


def _completed(saga: SagaInstance, items: Sequence[Item] | None, records: Sequence[StepRecord] | None) -> SagaInstance:
    if not items:
        return saga
    steps = {**saga.steps, **{record.key: record for record in records or ()}}
    return replace(saga, steps=steps, items={(item.step, item.key): item for item in items})


def _items(
    connection: Connection, needed: Mapping[UUID, Iterable[Wanted]], schema: str | None
) -> dict[UUID, list[Item]]:
    every = [(saga_id, one) for saga_id, found in needed.items() for one in found]
    keys = [(saga_id, one.step, key) for saga_id, one in every for key in one.keys]
    positions = [(saga_id, one.step, position) for saga_id, one in every for position in one.positions]
    items: dict[UUID, list[Item]] = {}
    for saga_id, *fields in connection.execute(_select_items(schema), {"keys": keys, "positions": positions}):
        items.setdefault(saga_id, []).append(Item(*fields))
    return items


def _rows_of(
    needed: Mapping[UUID, Iterable[Wanted]], items: Mapping[UUID, Iterable[Item]]
) -> list[tuple[UUID, str, str, str]]:
    """The keys of all rows that these items may have."""
    steps = {(saga_id, one.step): one.steps for saga_id, found in needed.items() for one in found}
    return [
        (saga_id, step, direction.value, item.key)
        for saga_id, some in items.items()
        for item in some
        for step in steps[saga_id, item.step]
        for direction in Direction
    ]


def _records(
    connection: Connection, rows: Sequence[tuple[UUID, str, str, str]], schema: str | None
) -> dict[UUID, list[StepRecord]]:
    records: dict[UUID, list[StepRecord]] = {}
    for row in connection.execute(_select_rows(schema), {"rows": rows}) if rows else ():
        records.setdefault(row[0], []).append(record_of(row))
    return records


@lru_cache
def _select_items(schema: str | None) -> Any:
    item = in_schema(saga_item, schema)
    by_key = tuple_(item.c.saga_id, item.c.step, item.c.key).in_(bindparam("keys", expanding=True))
    by_position = tuple_(item.c.saga_id, item.c.step, item.c.position).in_(bindparam("positions", expanding=True))
    return select(item.c.saga_id, item.c.step, item.c.position, item.c.key, item.c.item).where(or_(by_key, by_position))


@lru_cache
def _select_rows(schema: str | None) -> Any:
    step = in_schema(saga_step, schema)
    key = tuple_(step.c.saga_id, step.c.step, step.c.direction, step.c.branch)
    return select(*(step.c[column] for column in STEP_COLUMNS)).where(key.in_(bindparam("rows", expanding=True)))
