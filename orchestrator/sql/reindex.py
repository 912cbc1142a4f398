"""What sagas can be found by, written anew from their states: once after fields were marked, or marks were removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import Connection, delete, func, or_, select

from orchestrator.instance import SagaStatus
from orchestrator.searchable import filled_values
from orchestrator.sql.search import write_search
from orchestrator.sql.tables import in_schema, saga_instance, saga_search

if TYPE_CHECKING:
    from orchestrator.definition import Saga

AT_ONCE: Final = 500
_TERMINAL: Final = [status.value for status in SagaStatus if status.terminal]


def count_of(connection: Connection, name: str, schema: str | None) -> int:
    """How many sagas of a name there are."""
    instance = in_schema(saga_instance, schema).c
    return connection.scalar(select(func.count()).where(instance.name == name)) or 0


def some_of(connection: Connection, name: str, after: UUID | None, schema: str | None) -> Sequence[UUID]:
    """The ids of the next few sagas of a name."""
    instance = in_schema(saga_instance, schema).c
    statement = select(instance.id).where(instance.name == name).order_by(instance.id).limit(AT_ONCE)
    return list(connection.scalars(statement if after is None else statement.where(instance.id > after)))


def reindex(
    connection: Connection, ids: Sequence[UUID], versions: Mapping[int, type[Saga[Any]]], schema: str | None
) -> int:
    """Write anew what these sagas can be found by, in the caller's transaction, under their locks.

    Those of a version that is not here and that have not ended are left alone: whoever has it keeps other fields.

    Args:
        connection: in a transaction that has written nothing yet.
        ids: of sagas of one name.
        versions: the definitions of that name.
        schema: of our tables.

    Returns:
        How many were left alone.
    """
    instance, search = in_schema(saga_instance, schema).c, in_schema(saga_search, schema)
    these = select(instance.id, instance.version, instance.state).where(
        instance.id.in_(ids), or_(instance.version.in_(versions), instance.status.in_(_TERMINAL))
    )
    if connection.dialect.name == "postgresql":
        # Before anything else of theirs, as the engine does it. SQLite's write lock comes with the delete.
        connection.execute(these.order_by(instance.id).with_for_update(key_share=True))
    connection.execute(delete(search).where(search.c.saga_id.in_(select(these.subquery().c.id))))
    newest = versions[max(versions)]
    found = {
        saga_id: _found_by(versions.get(version, newest), state)
        for saga_id, version, state in connection.execute(these)
    }
    write_search(connection, found, schema)
    return len(ids) - len(found)


def _found_by(saga: type[Saga[Any]], state: str) -> Sequence[tuple[str, str]]:
    return tuple(filled_values(saga.state_type, saga.plan.searchable, state).items())
