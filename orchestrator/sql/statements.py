"""PostgreSQL's statements as a driver takes them: written for it once, run on its own cursor.

A round trip through SQLAlchemy's executions and results costs several times what the driver's costs. Errors are
SQLAlchemy's all the same, and a connection that is lost leaves the pool, as it does with theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Dialect, text
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")


class Statement:
    """One statement for one driver.

    Args:
        sql: the statement, with its parameters as `:name`.
        dialect: whose driver runs it.
    """

    def __init__(self, sql: str, dialect: Dialect) -> None:
        compiled = text(sql).compile(dialect=dialect)
        self._sql, self._order = str(compiled), compiled.positiontup

    def rows(self, connection: Connection, values: Mapping[str, Any]) -> list[Sequence[Any]]:
        """Run it, and return what it gives."""
        return self._on_cursor(connection, values, lambda cursor: list(cursor.fetchall()))

    def run(self, connection: Connection, values: Mapping[str, Any]) -> None:
        """Run one that gives nothing."""
        self._on_cursor(connection, values, lambda _: None)

    def _on_cursor(self, connection: Connection, values: Mapping[str, Any], then: Callable[[DBAPICursor], T]) -> T:
        given: Any = values if self._order is None else [values[name] for name in self._order]
        cursor = connection.connection.cursor()
        try:
            cursor.execute(self._sql, given)
            return then(cursor)
        except connection.dialect.loaded_dbapi.Error as error:
            lost = connection.dialect.is_disconnect(error, connection.connection, cursor)
            if lost:
                connection.invalidate(error)
            raise self._raised(error, connection.dialect, lost=lost) from error
        except BaseException as error:
            if not isinstance(error, Exception):  # cancelled in the middle of a statement
                connection.invalidate(error)
            raise
        finally:
            cursor.close()

    def _raised(self, error: Exception, dialect: Dialect, *, lost: bool) -> BaseException:
        base = dialect.loaded_dbapi.Error
        return DBAPIError.instance(
            self._sql, None, error, base, hide_parameters=True, connection_invalidated=lost, dialect=dialect
        )
