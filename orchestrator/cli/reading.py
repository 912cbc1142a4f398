"""What the reading commands share: settings, an open database, a reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.status import StatusReader


@asynccontextmanager
async def reader(database_url: str | None) -> AsyncGenerator[StatusReader]:
    """Read sagas from the configured database.

    Raises:
        CommandError: the settings are wrong, or the database cannot be reached.
        SchemaMismatch: its tables are missing or too old.
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.status import StatusReader

    settings = orchestrator_settings(database_url)
    async with opened(settings) as engine:
        yield StatusReader(engine, schema=settings.database_schema)
