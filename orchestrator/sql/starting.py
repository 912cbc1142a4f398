"""Starting a saga inside a transaction, one's own or a caller's.

The key decides: whoever inserts `saga_key` starts. A concurrent start with the same key waits for the
first one's transaction, then gets its id, or starts itself if that was rolled back. A conflict never
aborts the transaction (under REPEATABLE READ and above PostgreSQL may report a serialization failure).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Select, bindparam, exists, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.sql.rows import INSTANCE_COLUMNS, new_instance_values
from orchestrator.sql.search import write_search
from orchestrator.sql.states import write_first_states
from orchestrator.sql.tables import in_schema, saga_instance, saga_key

_TERMINAL: Final = [status.value for status in SagaStatus if status.terminal]
KEY_COLUMNS: Final = {"name": "name", "business_key": "business_key", "saga_id": "id", "created_at": "started_at"}
"""Of `saga_key`, each with the column of the instance that it is filled from."""


def start_saga(
    where: Session | Connection,
    saga: SagaInstance,
    *,
    reuse_key_after_end: bool = False,
    schema: str | None = None,
) -> tuple[UUID, bool]:
    """Write a new saga and its business key in this transaction; return its id and True.

    If a saga has the key already, or is this very one, write nothing and return that saga's id and False.
    One statement on PostgreSQL, two on SQLite, and one more each for searchable fields and for a state that is kept;
    without a business key, no row of `saga_key`.

    Args:
        where: a session or connection on the database of the sagas.
        saga: the new one, without steps.
        reuse_key_after_end: take the key over from a saga that has ended.
        schema: the schema of our tables, if not the connection's default one.
    """
    connection = where.connection() if isinstance(where, Session) else where
    saga_id, created = _started(connection, saga, schema, reuse=reuse_key_after_end)
    if created and saga.search:
        write_search(connection, {saga_id: saga.search}, schema)
    if created and saga.keeps_state:
        write_first_states(connection, [saga], schema)
    return saga_id, created


async def start_saga_async(
    where: AsyncSession | AsyncConnection,
    saga: SagaInstance,
    *,
    reuse_key_after_end: bool = False,
    schema: str | None = None,
) -> tuple[UUID, bool]:
    """Start as `start_saga` does, through an asynchronous session or connection."""

    def start(sync: Session | Connection) -> tuple[UUID, bool]:
        return start_saga(sync, saga, reuse_key_after_end=reuse_key_after_end, schema=schema)

    return await where.run_sync(start)


def _started(connection: Connection, saga: SagaInstance, schema: str | None, *, reuse: bool) -> tuple[UUID, bool]:
    values = new_instance_values(saga)
    if saga.business_key is None:
        return saga.id, _wrote(connection, _insert(connection.dialect.name, schema), values)
    if _insert_both(connection, values, schema):
        return saga.id, True
    return _taken(connection, saga, values, schema, reuse=reuse)


def _insert_both(connection: Connection, values: dict[str, Any], schema: str | None) -> bool:
    if connection.dialect.name == "postgresql":
        return _wrote(connection, _insert_both_at_once(schema), values)
    if not _wrote(connection, _insert_key(schema), values):
        return False
    connection.execute(_insert(connection.dialect.name, schema), values)
    return True


def _wrote(connection: Connection, statement: Any, values: dict[str, Any]) -> bool:
    """Run an insert that may meet a conflict; whether it wrote its row."""
    return connection.execute(statement, values, execution_options={"preserve_rowcount": True}).rowcount == 1


def _taken(
    connection: Connection, saga: SagaInstance, values: dict[str, Any], schema: str | None, *, reuse: bool
) -> tuple[UUID, bool]:
    """Find who has the key: in a statement of its own, since that of the insert may not see it."""
    key = in_schema(saga_key, schema)
    mine = (key.c.name == saga.pin.name, key.c.business_key == saga.business_key)
    # The lock on the key's row is what two starts that both want to reuse it meet at.
    held: Select[UUID] = select(key.c.saga_id).where(*mine)
    holder = connection.execute(held.with_for_update() if reuse else held).scalar_one()
    if not reuse or holder == saga.id or not _has_ended(connection, holder, schema):
        return holder, False
    connection.execute(update(key).where(*mine).values(_taken_over(saga)))
    connection.execute(_insert(connection.dialect.name, schema), values)
    return saga.id, True


def _taken_over(saga: SagaInstance) -> dict[str, Any]:
    return {"saga_id": saga.id, "created_at": saga.started_at, "purged_at": None, "ended_as": None}


def _has_ended(connection: Connection, saga_id: UUID, schema: str | None) -> bool:
    """Whether it is terminal, or was purged."""
    instance = in_schema(saga_instance, schema)
    status = connection.execute(select(instance.c.status).where(instance.c.id == saga_id)).scalar_one_or_none()
    return status is None or status in _TERMINAL


@lru_cache
def _insert(dialect: str, schema: str | None) -> Any:
    instance = in_schema(saga_instance, schema)
    into = postgresql.insert(instance) if dialect == "postgresql" else sqlite.insert(instance)
    return into.values({column: bindparam(column) for column in INSTANCE_COLUMNS}).on_conflict_do_nothing(
        index_elements=["id"]
    )


@lru_cache
def _insert_key(schema: str | None) -> Any:
    key = in_schema(saga_key, schema)
    values: dict[str, Any] = {column: bindparam(source) for column, source in KEY_COLUMNS.items()}
    return sqlite.insert(key).values(values).on_conflict_do_nothing()


@lru_cache
def _insert_both_at_once(schema: str | None) -> Any:
    key, instance = in_schema(saga_key, schema), in_schema(saga_instance, schema)
    values: dict[str, Any] = {
        column: bindparam(source, type_=key.c[column].type) for column, source in KEY_COLUMNS.items()
    }
    taken = postgresql.insert(key).values(values).on_conflict_do_nothing().returning(key.c.saga_id).cte("taken")
    row = select(*(bindparam(column, type_=instance.c[column].type) for column in INSTANCE_COLUMNS))
    return insert(instance).from_select(INSTANCE_COLUMNS, row.where(exists(select(taken.c.saga_id))))
