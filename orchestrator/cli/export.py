"""`saga export`: a stored saga as a test."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from orchestrator.cli import exits, options
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.recorded import Recorded
    from orchestrator.settings import OrchestratorSettings


@reported
def export(
    saga_id: options.SagaId,
    *,
    as_test: Annotated[bool, typer.Option("--as-test", metavar="", help="As a test, in Python.")] = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
) -> None:
    """Print a stored saga as a test that replays its messages in virtual time.

    Fields declared `Field(repr=False)`, or of pydantic's secret types, are replaced. The test is run before it is
    printed; if it does not pass, what is stored does not tell the whole story: stderr says so, the exit code is 1.
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.targets import loaded_app
    from orchestrator.testing.exported import as_test as written

    if not as_test:
        raise CommandError("say how to export it. Add: --as-test", exits.USAGE)
    settings = orchestrator_settings(database_url, app)
    registry = loaded_app(settings.app, app_dir=app_dir).registry
    recorded = asyncio.run(_read(settings, saga_id))
    saga = registry.find(recorded.pin)
    if saga is None:
        pin = recorded.pin
        raise CommandError(
            f"saga {saga_id} is of {pin.name!r} version {pin.version} ({pin.fingerprint}), which is not defined there. "
            "Export it with the code it was run by",
            exits.NOT_FOUND,
        )
    exported = written(type(saga), recorded)
    typer.echo(exported.source, nl=False)
    if exported.problem:
        print(f"It does not replay as it stands: {exported.problem}", file=sys.stderr)  # noqa: T201
        raise typer.Exit(exits.FAILED)


async def _read(settings: OrchestratorSettings, saga_id: UUID) -> Recorded:
    from orchestrator.cli.database import opened
    from orchestrator.errors import SagaErased
    from orchestrator.recorded import read_recorded
    from orchestrator.sql.erasing import ERASED
    from orchestrator.status import missing

    async with opened(settings) as engine, engine.connect() as connection:
        recorded = await connection.run_sync(read_recorded, saga_id, states=1, schema=settings.database_schema)
        if recorded is None:
            raise await connection.run_sync(missing, saga_id, schema=settings.database_schema)
    if recorded.state == ERASED:
        raise SagaErased(saga_id)
    return recorded
