"""`saga upgrade`: have sagas in flight belong to a later version of their definition."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.bulk_upgrade import UpgradeResult
    from orchestrator.definition import Saga
    from orchestrator.registry import SagaRegistry
    from orchestrator.settings import OrchestratorSettings


@reported
def upgrade(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name, such as create-order.")],
    *,
    from_version: Annotated[int, typer.Option("--from", metavar="VERSION", help="The version the sagas have.")],
    to_version: Annotated[
        int | None,
        typer.Option("--to", metavar="VERSION", help="Which they are to have; else the newest.", show_default=False),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell of each whether it can be upgraded, and why not.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is kept with each saga.", show_default=False)
    ] = "",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", help="How long engines have for each hundred.")
    ] = 30.0,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have sagas in flight go on with a later version of their definition.

    Each keeps what it has done, under the names its steps have; its state is lifted by `upcast` of the new version. One
    that does not fit keeps its version, and is told with why. An engine that has the new version does it.

    A dry run reads only, and needs no engine: run it before the new version is deployed.

    Exits with 4 when some do not fit, with 5 when no engine has answered.
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.targets import loaded_app

    if not (dry_run or reason):
        raise CommandError('why? Say --reason "...", or --dry-run to look first', exits.USAGE)
    settings = orchestrator_settings(database_url, app)
    registry = loaded_app(settings.app, app_dir=app_dir).registry
    to = _version(registry, name, to_version)
    if dry_run:
        results = asyncio.run(_looked(settings, registry, to, from_version))
    else:
        results = asyncio.run(_asked(settings, to, from_version, reason, timeout))
    _tell(results, f"{name} v{from_version}", f"v{to.version}", dry_run, as_json)


def _version(registry: SagaRegistry, name: str, version: int | None) -> type[Saga[Any]]:
    from orchestrator.cli.start import named

    newest = named(registry, name)
    found = newest if version is None else registry.version(name, version)
    if found is None:
        versions = ", ".join(f"v{pin.version}" for pin in registry.pins if pin.name == name)
        raise CommandError(f"saga {name!r} has no v{version} there. It has: {versions}", exits.NOT_FOUND)
    return found


async def _looked(
    settings: OrchestratorSettings, registry: SagaRegistry, to: type[Saga[Any]], from_version: int
) -> Sequence[UpgradeResult]:
    from orchestrator.bulk_upgrade import upgradable
    from orchestrator.cli.database import opened

    old, schema = registry.version(to.name, from_version), settings.database_schema
    async with opened(settings) as engine, engine.connect() as connection:
        return await connection.run_sync(lambda c: upgradable(c, to, from_version, old=old, schema=schema))


async def _asked(
    settings: OrchestratorSettings, to: type[Saga[Any]], from_version: int, reason: str, timeout: float
) -> Sequence[UpgradeResult]:
    from orchestrator.cli.acting import who
    from orchestrator.cli.database import opened
    from orchestrator.client import SagaClient

    async with opened(settings) as engine:
        client = SagaClient(engine, schema=settings.database_schema)
        return await client.upgrade_all(
            to, from_version=from_version, reason=reason, by=who(), within=timedelta(seconds=timeout)
        )


def _tell(results: Sequence[UpgradeResult], which: str, to: str, dry_run: bool, as_json: bool) -> None:
    for one in results:
        if as_json:
            output.print_json(one)
        elif one.refused:
            typer.echo(f"{one.saga_id}  refused: {one.refused}")
        elif one.passed_over:
            typer.echo(f"{one.saga_id}  goes on without {', '.join(one.passed_over)}: it is beyond that")
    refused = sum(bool(one.refused) for one in results)
    done = "can be upgraded" if dry_run else "upgraded"
    typer.echo(f"{len(results) - refused} of {which} {done} to {to}, {refused} not.", err=True)
    if any(one.unanswered for one in results):
        raise typer.Exit(exits.UNREACHABLE)
    if refused:
        raise typer.Exit(exits.REFUSED)
