"""The database as a command needs it: there, reachable and migrated, or an error that says what to do."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from orchestrator.settings import OrchestratorSettings


@asynccontextmanager
async def opened(
    settings: OrchestratorSettings, *, only: str | None = None, connections: int = 2
) -> AsyncGenerator[AsyncEngine]:
    """Connect, check the schema, and let go at the end. No engine of sagas runs here.

    Args:
        settings: where it is.
        only: `messaging`, where the tables of the bus will do.
        connections: so many at most.

    Raises:
        CommandError: the database cannot be reached.
        SchemaMismatch: its tables are missing or too old.
    """
    from orchestrator.sql.revisions import check_revisions

    refuse_missing_file(settings)
    engine = engine_of(settings, connections=connections)
    try:
        try:
            async with engine.connect() as connection:
                await connection.run_sync(lambda _: None)
        except Exception as error:
            raise unreachable(settings, error) from error
        async with engine.connect() as connection:
            await connection.run_sync(check_revisions, schema=settings.database_schema, only=only)
        yield engine
    finally:
        await engine.dispose()


def engine_of(settings: OrchestratorSettings, *, connections: int = 2) -> AsyncEngine:
    """Make an engine; nothing is connected yet.

    Raises:
        CommandError: the driver is not installed.
    """
    from orchestrator.sql.connecting import ConnectionSettings, connect

    try:
        return connect(settings.url, ConnectionSettings(pool_size=connections))
    except ModuleNotFoundError as error:
        raise CommandError(
            f"the driver {error.name} is not installed. Run: pip install 'sagasmith[postgres]'"
        ) from error


def refuse_missing_file(settings: OrchestratorSettings) -> None:
    """Keep a reading command from creating an empty SQLite file.

    Raises:
        CommandError: there is no such file.
    """
    from sqlalchemy import make_url

    url = make_url(settings.url)
    file = url.database or ":memory:"
    if url.get_backend_name() == "sqlite" and not file.startswith((":memory:", "file:")) and not Path(file).exists():
        raise CommandError(
            f"there is no database at {Path(file).resolve()}. Run: saga migrate\n"
            "Another one is meant? Set ORCHESTRATOR_DATABASE_URL, or say --database-url"
        )


def unreachable(settings: OrchestratorSettings, error: Exception) -> CommandError:
    """What to say of a database that does not answer."""
    cause = getattr(error, "orig", None) or error
    detail = str(cause) or type(cause).__name__
    return CommandError(
        f"the database {settings.shown_url} cannot be reached: {detail}\n"
        "Is it running, and is ORCHESTRATOR_DATABASE_URL right? Check with: saga doctor",
        exits.UNREACHABLE,
    )
