"""Starting many sagas of one definition inside a transaction, in statements whose number does not grow with them."""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, Table, text
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.dml import ReturningInsert

from orchestrator.instance import SagaInstance
from orchestrator.sql.arrays import columnwise, listed, unnested
from orchestrator.sql.hot import named
from orchestrator.sql.rows import INSTANCE_COLUMNS, new_instance_values
from orchestrator.sql.search import write_search
from orchestrator.sql.starting import KEY_COLUMNS, start_saga
from orchestrator.sql.states import write_first_states
from orchestrator.sql.tables import saga_instance, saga_key


def start_sagas(
    connection: Connection, sagas: Sequence[SagaInstance], *, reuse_key_after_end: bool = False, schema: str | None
) -> list[tuple[UUID, bool]]:
    """Start each as `start_saga` does, in the same order.

    Args:
        connection: in whose transaction.
        sagas: new ones, without steps; with one key twice, the first of them starts.
        reuse_key_after_end: as for `start_saga`.
        schema: as for `start_saga`.
    """
    if len(sagas) < 2:
        return [start_saga(connection, one, reuse_key_after_end=reuse_key_after_end, schema=schema) for one in sagas]
    created = {saga_id for keyed in (False, True) for saga_id in _inserted(connection, sagas, schema, keyed=keyed)}
    new = [saga for saga in sagas if saga.id in created]
    write_search(connection, {saga.id: saga.search for saga in new if saga.search}, schema)
    write_first_states(connection, [saga for saga in new if saga.keeps_state], schema)
    # Who has a key that is taken, a statement of its own finds out.
    return [
        (saga.id, True)
        if saga.id in created
        else start_saga(connection, saga, reuse_key_after_end=reuse_key_after_end, schema=schema)
        for saga in sagas
    ]


def _inserted(
    connection: Connection, sagas: Iterable[SagaInstance], schema: str | None, *, keyed: bool
) -> Iterable[UUID]:
    """Write those with a key, or those without; in one order, so that two who start the same never wait in a circle."""
    rows = [new_instance_values(saga) for saga in sagas if (saga.business_key is not None) is keyed]
    if not rows:
        return ()
    rows.sort(key=lambda row: row["business_key"] or "")
    if connection.dialect.name == "sqlite":
        return _on_sqlite(connection, rows, keyed=keyed)
    values = columnwise(INSTANCE_COLUMNS, [[row[column] for column in INSTANCE_COLUMNS] for row in rows])
    return connection.execute(_statement(schema, keyed), values).scalars()


def _on_sqlite(connection: Connection, rows: Sequence[Mapping[str, Any]], *, keyed: bool) -> Iterable[UUID]:
    if keyed:
        keys = [{column: row[source] for column, source in KEY_COLUMNS.items()} for row in rows]
        taken = set(connection.execute(_sqlite(saga_key, saga_key.c.saga_id), keys).scalars())
        rows = [row for row in rows if row["id"] in taken]
    return connection.execute(_sqlite(saga_instance, saga_instance.c.id), rows).scalars() if rows else ()


def _sqlite(table: Table, gives: ColumnElement[UUID]) -> ReturningInsert[UUID]:
    return sqlite.insert(table).on_conflict_do_nothing().returning(gives)


_ROWS: Final = unnested(INSTANCE_COLUMNS)
_KEYS: Final = (
    "INSERT INTO {saga_key} (name, business_key, saga_id, created_at) "
    f"SELECT v.name, v.business_key, v.id, v.started_at FROM {_ROWS} ON CONFLICT DO NOTHING RETURNING saga_id"
)
_INSTANCES: Final = (
    f"INSERT INTO {{saga_instance}} ({listed(INSTANCE_COLUMNS)}) SELECT {listed(INSTANCE_COLUMNS, 'v.')} FROM {_ROWS}"
)


@lru_cache
def _statement(schema: str | None, keyed: bool) -> Any:
    with_keys = f"WITH taken AS ({_KEYS}) {_INSTANCES} WHERE v.id IN (SELECT saga_id FROM taken) RETURNING id"
    return text(named(schema, with_keys if keyed else f"{_INSTANCES} ON CONFLICT (id) DO NOTHING RETURNING id"))
