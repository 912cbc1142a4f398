"""`saga upgrade`: have sagas in flight go on with a later version of their definition."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import acting, exits, many, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.progress import Progress
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.asking_upgrades import Upgradable
    from orchestrator.definition import Saga
    from orchestrator.registry import SagaRegistry


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
        bool,
        typer.Option("--dry-run", metavar="", help="Tell of each whether it can be upgraded, and why not; do nothing."),
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is kept with each saga.", show_default=False)
    ] = "",
    rate: acting.Rate = 100,
    yes: options.Yes = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have sagas in flight go on with a later version of their definition.

    Each keeps what it has done, under the names its steps have; `upcast` of the new version lifts its state. One that
    does not fit keeps its version, and is told with why (exit code 4). An engine that has the new version does it.

    A dry run reads only, and needs no engine: look before the new version is deployed.
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.targets import loaded_app

    if not (dry_run or reason):
        raise CommandError('why? Say --reason "...", or --dry-run to look first', exits.USAGE)
    registry = loaded_app(orchestrator_settings(database_url, app).app, app_dir=app_dir).registry
    to = _version(registry, name, to_version)
    found = asyncio.run(_looked(database_url, to, from_version, registry.version(name, from_version)))
    if dry_run:
        _tell(found, as_json=as_json)
        return
    if found and not yes:
        many.ask_first("upgrade", len(found))
    asked = _asked(database_url, to, from_version, reason, rate, total=len(found), as_json=as_json)
    many.ended(asyncio.run(asked))


def _version(registry: SagaRegistry, name: str, version: int | None) -> type[Saga[Any]]:
    from orchestrator.cli.start import named

    newest = named(registry, name)
    found = newest if version is None else registry.version(name, version)
    if found is None:
        versions = ", ".join(f"v{pin.version}" for pin in registry.pins if pin.name == name)
        raise CommandError(f"saga {name!r} has no v{version} there. It has: {versions}", exits.NOT_FOUND)
    return found


async def _looked(
    database_url: str | None, to: type[Saga[Any]], from_version: int, old: type[Saga[Any]] | None
) -> Sequence[Upgradable]:
    async with many.client(database_url) as sagas:
        return await sagas.upgradable(to, from_version=from_version, old=old)


async def _asked(
    database_url: str | None,
    to: type[Saga[Any]],
    from_version: int,
    reason: str,
    rate: float,
    *,
    total: int,
    as_json: bool,
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    async with many.client(database_url) as sagas:
        asked = sagas.upgrade_all(to, from_version=from_version, reason=reason, by=acting.who(), per_second=rate)
        with Progress(total) as progress:
            async for result in asked:
                outcomes[result.outcome.value] += 1
                progress.clear()
                many.tell(result, as_json=as_json)
                progress.show(outcomes.total())
    return outcomes


def _tell(found: Sequence[Upgradable], *, as_json: bool) -> None:
    for one in found:
        without = f", without {', '.join(one.passed_over)}: it is beyond that" if one.passed_over else ""
        if as_json:
            output.print_json(one)
        else:
            output.say(f"{one.saga_id}  {f'cannot be: {one.refused}' if one.refused else f'can be{without}'}")
    refused = sum(bool(one.refused) for one in found)
    typer.echo(f"{many.counted(len(found) - refused)} can be upgraded, {refused:,} not. Nothing was done.", err=True)
    if refused:
        raise typer.Exit(exits.REFUSED)
