"""Bringing a database's tables up to date, from a source tree or an installed package.

Two sets of migrations, each with a version table of its own: `messaging` (outbox, inbox, dead letters;
all that a participant's database needs) and `orchestrator` (sagas). Safe to run from several processes
at once, and again.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.schema import CreateSchema

from orchestrator.sql.revisions import BRANCHES, Branch, branch_named, stored_revision

_SYNC_DRIVERS: Final = {
    "sqlite+aiosqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+asyncpg": "postgresql+psycopg",
}
_ADVISORY_LOCK: Final = 7_246_711_013


def upgrade(
    url: str | URL,
    *,
    only: str | None = None,
    schema: str | None = None,
    sql: bool = False,
    installation: str = "main",
) -> str:
    """Bring a database up to date; all or nothing. Return the SQL instead of running it, if asked to.

    Args:
        url: of the database; drivers for coroutines are understood.
        only: `messaging` for the database of a participant; else everything.
        schema: the PostgreSQL schema for our tables, created if missing; else the connection's default one.
        sql: return a script for a new database and touch none.
        installation: what to call this installation, at the first time.
    """
    return _run(url, only, schema, sql, installation, "upgrade", "head")


def downgrade(
    url: str | URL,
    *,
    only: str | None = None,
    schema: str | None = None,
    sql: bool = False,
    to: str = "base",
) -> str:
    """Take migrations back, the newest first; `base` removes the tables with all that is in them.

    A script of SQL begins at the newest revision.
    """
    return _run(url, only, schema, sql, "main", "downgrade", to)


def check(url: str | URL, *, only: str | None = None, schema: str | None = None) -> list[str]:
    """Return the revisions a database is behind, such as `orchestrator 0002`, oldest first; empty is good."""
    behind: list[str] = []
    with _sync_engine(url).connect() as connection:
        for branch in _branches(only):
            script = ScriptDirectory.from_config(_config(branch))
            stored = stored_revision(connection, branch, schema)
            known = [revision.revision for revision in script.walk_revisions()][::-1]
            if stored is None or stored in known:
                behind += [f"{branch.name} {one}" for one in known if stored is None or one > stored]
    return behind


def _branches(only: str | None) -> Sequence[Branch]:
    return BRANCHES if only is None else (branch_named(only),)


def _run(
    url: str | URL, only: str | None, schema: str | None, sql: bool, installation: str, direction: str, to: str
) -> str:
    attributes: dict[str, Any] = {"schema": schema, "installation": installation}
    branches = _branches(only) if direction == "upgrade" else _branches(only)[::-1]
    if sql:
        return "".join(_script(branch, url, attributes, direction, to) for branch in branches)
    with _transaction(url, schema) as connection:
        for branch in branches:
            config = _config(branch)
            config.attributes.update(attributes, connection=connection)
            getattr(command, direction)(config, to)
    return ""


def _script(branch: Branch, url: str | URL, attributes: dict[str, Any], direction: str, to: str) -> str:
    output = io.StringIO()
    config = _config(branch, output)
    config.attributes.update(attributes)
    config.set_main_option("sqlalchemy.url", _sync_url(url).render_as_string(hide_password=False).replace("%", "%%"))
    getattr(command, direction)(config, to if direction == "upgrade" else f"head:{to}", sql=True)
    return output.getvalue()


def _config(branch: Branch, output: io.StringIO | None = None) -> Config:
    config = Config(output_buffer=output) if output is not None else Config()
    directory = migrations_directory()
    for name, value in {
        "script_location": str(directory),
        "version_locations": str(directory / "versions" / branch.name),
        "path_separator": "newline",
        "branch": branch.name,
    }.items():
        config.set_main_option(name, value.replace("%", "%%"))
    return config


def migrations_directory() -> Path:
    """Where the migrations are: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "_migrations"
    return installed if installed.is_dir() else package.parent / "migrations"


def _sync_url(url: str | URL) -> URL:
    parsed = make_url(url)
    return parsed.set(drivername=_SYNC_DRIVERS.get(parsed.drivername, parsed.drivername))


def _sync_engine(url: str | URL) -> Engine:
    engine = create_engine(_sync_url(url), hide_parameters=True)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _leave_transactions_alone)
        event.listen(engine, "begin", _begin_as_writer)
    return engine


def _leave_transactions_alone(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver would commit before every CREATE


def _log_ahead(connection: Any, _: Any) -> None:
    """Have the file keep a write-ahead log from the start: changing to one later finds no gap between writers."""
    connection.execute("PRAGMA journal_mode=WAL")


def _begin_as_writer(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def _transaction(url: str | URL, schema: str | None) -> Generator[Connection]:
    engine = _sync_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _log_ahead)
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
                if schema is not None:
                    connection.execute(CreateSchema(schema, if_not_exists=True))
            yield connection
    finally:
        engine.dispose()
