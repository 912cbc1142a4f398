"""Engines as sagas need them: durable, bounded in time, one writer on SQLite."""

from __future__ import annotations

import fcntl
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Final
from uuid import uuid4

from sqlalchemy import URL, event, make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from orchestrator.errors import EngineAlreadyRunning
from orchestrator.sql.planning import ROW_BY_ROW

_ASYNC_DRIVERS: Final = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
_ASYNC: Final = {"aiosqlite", "asyncpg", "psycopg"}


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """How long the database may take, and how many connections it gets."""

    pool_size: int = 10
    connect_timeout: timedelta = timedelta(seconds=10)
    statement_timeout: timedelta = timedelta(seconds=30)
    lock_timeout: timedelta = timedelta(seconds=10)
    """On SQLite: how long to wait for the other processes' writes."""
    idle_in_transaction_timeout: timedelta = timedelta(seconds=60)
    trusted_for: timedelta = timedelta(seconds=1)
    """How long after its last use a pooled connection is taken without being asked whether it lives."""
    external_pooler: bool = False
    """A pooler in transaction mode (pgbouncer) stands between: no named prepared statements, and timeouts
    are set in each transaction, since connections have no state of their own."""

    def timeouts(self) -> Mapping[str, str]:
        """PostgreSQL's settings, in its words."""
        return {
            "statement_timeout": _milliseconds(self.statement_timeout),
            "lock_timeout": _milliseconds(self.lock_timeout),
            "idle_in_transaction_session_timeout": _milliseconds(self.idle_in_transaction_timeout),
        }


def _milliseconds(value: timedelta) -> str:
    return str(max(1, round(value.total_seconds() * 1000)))


def async_url(url: str | URL) -> URL:
    """The URL with a driver for coroutines, when it names none or a blocking one.

    Raises:
        ValueError: neither SQLite nor PostgreSQL.
    """
    parsed = make_url(url)
    backend = parsed.get_backend_name()
    if backend not in _ASYNC_DRIVERS:
        raise ValueError(f"sagas are kept in PostgreSQL or SQLite, not in {backend!r}: {parsed!r}")
    named = "+" in parsed.drivername
    if named and parsed.get_driver_name() in _ASYNC:
        return parsed
    return parsed.set(drivername=_ASYNC_DRIVERS[backend])


def connect(url: str | URL, settings: ConnectionSettings, *, row_by_row: bool = False) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    Args:
        url: of the database.
        settings: bounds.
        row_by_row: whether its statements find rows one by one, as those of a saga engine do.
    """
    parsed = async_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed, settings)
    driver = parsed.get_driver_name()
    own = (
        {}
        if settings.external_pooler
        else {**settings.timeouts(), **({**ROW_BY_ROW, "jit": "off"} if row_by_row else {})}
    )
    arguments = _asyncpg(settings, own) if driver == "asyncpg" else _psycopg(settings, own)
    engine = create_async_engine(
        parsed,
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_size=settings.pool_size,
        max_overflow=0,
        pool_timeout=settings.lock_timeout.total_seconds(),
        # The connection used last knows the statements, and needs no question.
        pool_use_lifo=True,
        hide_parameters=True,
    )
    _ask_the_idle(engine, settings.trusted_for.total_seconds())
    return engine


def _ask_the_idle(engine: AsyncEngine, trusted_seconds: float) -> None:
    """Replace connections that died in the pool: asking each time would cost three round trips a transaction."""
    sync, since = engine.sync_engine, "sagasmith_idle_since"

    def put_back(_: Any, record: ConnectionPoolEntry) -> None:
        record.info[since] = time.monotonic()

    def taken(connection: Any, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        if time.monotonic() - record.info.get(since, math.inf) < trusted_seconds:
            return
        try:
            sync.dialect.do_ping(connection)
        except sync.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError("the connection was lost while it was idle") from error

    event.listen(sync, "checkin", put_back)
    event.listen(sync, "checkout", taken)


def _asyncpg(settings: ConnectionSettings, own: Mapping[str, str]) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "timeout": settings.connect_timeout.total_seconds(),
        # The server's own timeout comes first; this one is for a server that is gone.
        "command_timeout": settings.statement_timeout.total_seconds() * 1.5,
    }
    server = {"application_name": "sagasmith", "timezone": "UTC", **own}
    if settings.external_pooler:
        arguments |= {
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__saga_{uuid4()}__",
        }
    return arguments | {"server_settings": server}


def _psycopg(settings: ConnectionSettings, own: Mapping[str, str]) -> dict[str, Any]:
    options = " ".join(f"-c {name}={value}" for name, value in own.items())
    arguments: dict[str, Any] = {
        "application_name": "sagasmith",
        "connect_timeout": max(2, round(settings.connect_timeout.total_seconds())),
        "tcp_user_timeout": int(_milliseconds(settings.statement_timeout)),
        "options": options if settings.external_pooler else f"-c timezone=UTC {options}",
    }
    return arguments | ({"prepare_threshold": None} if settings.external_pooler else {})


def _sqlite(url: URL, settings: ConnectionSettings) -> AsyncEngine:
    engine = create_async_engine(url, hide_parameters=True)
    busy = _milliseconds(settings.lock_timeout)

    def prepare(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in (f"busy_timeout={busy}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine.sync_engine, "connect", prepare)
    return engine


class EngineLock:
    """One engine a SQLite file: a lock the kernel lets go of when the process ends, however it ends."""

    def __init__(self, database: str) -> None:
        self._path = Path(database).resolve()
        self._file: IO[bytes] | None = None

    def take(self) -> None:
        """Take the lock.

        Raises:
            EngineAlreadyRunning: another process has it.
        """
        file = Path(f"{self._path}.engine-lock").open("ab")  # noqa: SIM115 - open is locked
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.close()
            raise EngineAlreadyRunning(str(self._path)) from error
        self._file = file

    def release(self) -> None:
        """Let go of it. Idempotent. The file stays: removing it would let two processes lock two files."""
        if self._file is not None:
            self._file.close()
            self._file = None
