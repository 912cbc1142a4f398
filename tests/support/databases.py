"""Fresh PostgreSQL databases for tests."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql


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


def _execute(url: str, statement: sql.Composed) -> None:
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        connection.execute(statement)
