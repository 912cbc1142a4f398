"""`saga reindex`: have sagas that were started before a field was marked as searchable found by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import many, options
from orchestrator.cli.progress import Progress
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.definition import Saga
    from orchestrator.settings import OrchestratorSettings


@reported
def reindex(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name, such as create-order.")],
    *,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
) -> None:
    """Write anew what sagas are found by with --where, from their states.

    Run it once when fields were marked as Searchable, or marks were removed, and every process has that code. A few
    hundred sagas at a time, so it may run beside engines, and be run again after it was interrupted. Progress is told
    on stderr.
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.start import named
    from orchestrator.cli.targets import loaded_app

    settings = orchestrator_settings(database_url, app)
    registry = loaded_app(settings.app, app_dir=app_dir).registry
    named(registry, name)
    versions = {saga.version: saga for saga in registry if saga.name == name}
    done, left = asyncio.run(_reindexed(settings, name, versions))
    fields = ", ".join(versions[max(versions)].plan.searchable) or "nothing"
    typer.echo(f"{many.counted(done)} can be found by {fields}.")
    if left:
        typer.echo(f"{many.counted(left)} left alone, of versions that are not there: give --app a code that has them.")


async def _reindexed(
    settings: OrchestratorSettings, name: str, versions: Mapping[int, type[Saga[Any]]]
) -> tuple[int, int]:
    from orchestrator.cli.database import opened
    from orchestrator.sql.reindex import count_of, some_of
    from orchestrator.sql.reindex import reindex as write_anew

    schema, last = settings.database_schema, None
    done = left = 0
    async with opened(settings) as engine:
        async with engine.connect() as connection:
            total = await connection.run_sync(count_of, name, schema)
        with Progress(total) as progress:
            while True:
                async with engine.connect() as connection:
                    ids = await connection.run_sync(some_of, name, last, schema)
                if not ids:
                    return done, left
                async with engine.begin() as connection:
                    alone = await connection.run_sync(write_anew, ids, versions, schema)
                last, done, left = ids[-1], done + len(ids) - alone, left + alone
                progress.show(done + left)
