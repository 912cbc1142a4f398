"""The outbox through a cursor of somebody else's: Django's own transaction, or a plain driver's.

    with transaction.atomic(), connection.cursor() as cursor:
        order.save()
        bus.publish(OrderPlaced(order_id=order.id), session=cursor)

Nothing of Django is imported: its cursors name their database, and so do the drivers' by their modules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from inspect import iscoroutinefunction
from typing import Any, Final, Protocol

from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.dml import Insert

from messaging.errors import OutboxRefused

_IDLE: Final = 0  # psycopg's and libpq's word for: no transaction is open


class Cursor(Protocol):
    """A cursor of `sqlite3` or psycopg 3, as it is or as Django wraps it, in a transaction that is open."""

    def execute(self, query: Any, params: Any = ..., /) -> Any:
        """Run a statement."""
        ...

    def fetchone(self) -> Any:
        """Return a row."""
        ...


def is_one(thing: Any) -> bool:
    """Whether it is a cursor that blocks; of one that is awaited, a statement that is not would be lost."""
    return hasattr(thing, "fetchone") and not iscoroutinefunction(getattr(thing, "execute", None))


def execute(cursor: Cursor, statement: Insert, rows: Sequence[Mapping[str, Any]]) -> None:
    """Run an insert for each row, with the database's own idea of values.

    Args:
        cursor: what runs it.
        statement: one object for one statement, since what it compiles to is kept.
        rows: values by the statement's parameters.

    Raises:
        OutboxRefused: the cursor is in no transaction, or of a database that has no outbox.
    """
    compiled = _compiled(statement, *_flavour(cursor))
    sql = str(compiled)
    for row in rows:
        cursor.execute(sql, _bound(compiled, row))


def on_commit(cursor: Cursor, call: Callable[[], None]) -> None:
    """Call after the commit, where that can be known: Django tells, plain drivers do not."""
    database: Any = getattr(cursor, "db", None)
    if database is not None:
        database.on_commit(call)


def _flavour(cursor: Any) -> tuple[str, str]:
    """The database and the style of parameters; refuses a cursor whose statements commit by themselves."""
    database = getattr(cursor, "db", None)
    if database is not None:
        if database.get_autocommit():
            raise OutboxRefused(
                "the cursor is in no transaction, so a message would be written whatever becomes of your own work. "
                "Write both inside: with transaction.atomic()"
            )
        return _known(database.vendor), "pyformat"
    driver = type(cursor).__module__.partition(".")[0]
    if _commits_by_itself(driver, cursor.connection):
        raise OutboxRefused(
            "the cursor's connection commits each statement by itself, so a message would be written whatever "
            "becomes of your own work. Begin a transaction first"
        )
    return _known({"sqlite3": "sqlite", "psycopg": "postgresql"}.get(driver, driver)), (
        "named" if driver == "sqlite3" else "pyformat"
    )


def _known(database: str) -> str:
    if database not in ("sqlite", "postgresql"):
        raise OutboxRefused(f"there is no outbox for {database!r}: it is kept in PostgreSQL or SQLite")
    return database


def _commits_by_itself(driver: str, connection: Any) -> bool:
    if driver == "sqlite3":
        # Otherwise the module begins a transaction with the first statement that writes.
        return connection.isolation_level is None and not connection.in_transaction
    if driver == "psycopg":
        return bool(connection.autocommit) and connection.info.transaction_status == _IDLE
    return False


@lru_cache
def _compiled(statement: Insert, database: str, parameters: str) -> SQLCompiler:
    dialect: Dialect = (psycopg if database == "postgresql" else sqlite).dialect(paramstyle=parameters)
    return statement.compile(dialect=dialect)


def _bound(compiled: SQLCompiler, row: Mapping[str, Any]) -> dict[str, Any]:
    """The values as this database's driver takes them."""
    bound = dict(compiled.construct_params(row))
    for parameter, name in compiled.bind_names.items():
        process = parameter.type.dialect_impl(compiled.dialect).bind_processor(compiled.dialect)
        if process:
            bound[name] = process(bound[name])
    return bound
