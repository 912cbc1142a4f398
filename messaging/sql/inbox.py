"""The inbox as a table: the unique key is the arbiter, the database's own waiting is the queue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, cast

from sqlalchemy import (
    BindParameter,
    Connection,
    CursorResult,
    Executable,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from messaging.inbox import Answer, Claim, StillWorking
from messaging.sql.tables import tables

KEEP_CLAIMS: Final = timedelta(days=35)
"""Longer than any saga may still send a copy of what it has sent."""

_LOCK_NOT_AVAILABLE: Final = "55P03"
_COLUMNS: Final = ("service", "idempotency_key", "undone", "claimed_at")


class SqlInbox:
    """The inbox of one service.

    Claiming waits for a transaction that holds the same key. On PostgreSQL the wait ends after
    `claim_wait`, by the transaction's `lock_timeout`, which so bounds the handler's own waits for locks
    too, unless it sets another. On SQLite there is one writer at a time, and the connection's
    busy timeout bounds the wait.
    """

    def __init__(
        self, service: str, *, schema: str | None = None, claim_wait: timedelta = timedelta(seconds=5)
    ) -> None:
        self._service, self._schema = service, schema
        self._wait = f"{max(1, round(claim_wait.total_seconds() * 1000))}ms"

    def rows(self, session: Session) -> SqlInboxRows:
        """Return the claims as seen in this session's transaction."""
        connection = session.connection()
        return SqlInboxRows(connection, self._service, self._wait, _statements(self._schema, connection.dialect.name))

    def purge(self, session: Session, *, before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` claims that are older, of this service; return how many there were."""
        inbox = tables(self._schema).inbox
        keys = (inbox.c.service, inbox.c.idempotency_key)
        old = (
            select(*keys)
            .where(inbox.c.service == self._service, inbox.c.claimed_at < before)
            .order_by(inbox.c.claimed_at)
            .limit(limit)
        )
        found = [tuple(row) for row in session.connection().execute(old)]
        if found:
            session.connection().execute(delete(inbox).where(tuple_(*keys).in_(found)))
        return len(found)


class SqlInboxRows:
    """The claims of one service, in one transaction."""

    __slots__ = ("_connection", "_service", "_statements", "_wait")

    def __init__(self, connection: Connection, service: str, wait: str, statements: _Statements) -> None:
        self._connection, self._service = connection, service
        self._wait, self._statements = wait, statements

    def claim(self, key: str, *, undone: bool = False) -> Claim | None:
        """Insert the key, waiting for whoever is inserting it; or read what the earlier claim left.

        Raises:
            StillWorking: whoever is inserting it took too long, or ended by going back, just now.
        """
        values = {
            "service": self._service,
            "idempotency_key": key,
            "undone": undone,
            "claimed_at": datetime.now(UTC),
            "wait": self._wait,
        }
        try:
            inserted = cast("CursorResult[Any]", self._connection.execute(self._statements.claim, values))
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == _LOCK_NOT_AVAILABLE:
                raise StillWorking(key) from error
            raise
        if inserted.rowcount == 1:
            return None
        row = self._connection.execute(
            self._statements.find, {"of_service": self._service, "of_key": key}
        ).one_or_none()
        if row is None:
            raise StillWorking(key)
        if row.outcome is None:
            return Claim(row.undone, None)
        body = (row.body or "").encode()
        return Claim(row.undone, Answer(row.outcome, row.error_code or "", row.type or "", body))

    def store(self, key: str, answer: Answer) -> None:
        """Write the answer beside the claim."""
        self._connection.execute(
            self._statements.store,
            {
                "of_service": self._service,
                "of_key": key,
                "outcome": answer.outcome,
                "error_code": answer.error_code,
                "type": answer.type,
                "body": answer.body.decode(),
            },
        )


@dataclass(frozen=True, slots=True)
class _Statements:
    """What is sent to one kind of database, built once."""

    claim: Executable
    find: Executable
    store: Executable


@lru_cache
def _statements(schema: str | None, dialect: str) -> _Statements:
    inbox = tables(schema).inbox
    mine = (inbox.c.service == bindparam("of_service"), inbox.c.idempotency_key == bindparam("of_key"))
    answer: dict[str, BindParameter[Any]] = {
        name: bindparam(name) for name in ("outcome", "error_code", "type", "body")
    }
    return _Statements(
        # Not every driver's count of inserted rows is kept without being asked for.
        claim=(_postgresql_claim if dialect == "postgresql" else _sqlite_claim)(schema).execution_options(
            preserve_rowcount=True
        ),
        find=select(inbox.c.undone, inbox.c.outcome, inbox.c.error_code, inbox.c.type, inbox.c.body).where(*mine),
        store=update(inbox).where(*mine).values(answer),
    )


def _postgresql_claim(schema: str | None) -> postgresql.Insert:
    """One statement that bounds the waiting and claims: the setting is in force before the row is inserted."""
    inbox = tables(schema).inbox
    setting = select(func.set_config("lock_timeout", bindparam("wait"), True).label("wait")).cte("bounded")
    values = (bindparam(name, type_=inbox.c[name].type) for name in _COLUMNS)
    row = select(*values).select_from(setting).where(literal_column("bounded.wait").is_not(None))
    return postgresql.insert(inbox).from_select(_COLUMNS, row).on_conflict_do_nothing()


def _sqlite_claim(schema: str | None) -> sqlite.Insert:
    """A write comes first in the transaction, so it begins as the one writer and never has to become it."""
    inbox = tables(schema).inbox
    values: dict[str, BindParameter[Any]] = {name: bindparam(name) for name in _COLUMNS}
    return sqlite.insert(inbox).values(values).on_conflict_do_nothing()
