"""Fresh databases for tests."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql
from sqlalchemy import make_url

from orchestrator.sql.migrate import upgrade


@contextmanager
def fresh_database(admin_url: str, *, template: str = "template1") -> Iterator[str]:
    """Create an empty database and drop it afterwards, whoever is still connected to it.

    Args:
        admin_url: `postgresql://...` of a user who may create databases.
        template: the name of a database to copy, which nobody is connected to.

    Yields:
        Its URL for SQLAlchemy with asyncpg, `postgresql+asyncpg://...`.
    """
    name = f"sagasmith_test_{secrets.token_hex(4)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
    _execute(admin_url, statement.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield urlunsplit(urlsplit(admin_url)._replace(scheme="postgresql+asyncpg", path=f"/{name}"))
    finally:
        _execute(admin_url, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def emptied(url: str) -> None:
    """Delete all rows but those that migrations wrote, and end whoever is still connected."""
    with psycopg.connect(url.replace("+asyncpg", ""), autocommit=True, connect_timeout=10) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        connection.execute("SET session_replication_role = replica")  # in any order, whatever refers to what
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        tables = [name for (name,) in found if name != "saga_installation" and not name.endswith("_version")]
        connection.execute(sql.SQL("; ").join(sql.SQL("DELETE FROM {}").format(sql.Identifier(n)) for n in tables))


def new_sqlite(url: str) -> None:
    """Make a SQLite file with all tables, unless it is there: migrated once a process, and copied from then on."""
    file = Path(str(make_url(url).database))
    if not file.exists():
        file.write_bytes(_migrated_sqlite())


@cache
def _migrated_sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "migrated.db"
        upgrade(f"sqlite:///{file}")
        return file.read_bytes()


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(statement)
