"""`saga check`: what works as written, and yet goes wrong one day."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.checking import Finding
    from orchestrator.definition import Saga
    from orchestrator.sql.in_flight import InFlight

_COLOURS: Final = {"error": "bold red", "warning": "yellow", "advice": "cyan"}


@reported
def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="TARGET...", help="MODULE:ATTRIBUTE of orchestrators; else the one that is configured."),
    ] = None,
    *,
    strict: Annotated[bool, typer.Option("--strict", metavar="", help="Let warnings fail as well.")] = False,
    against_db: Annotated[
        bool, typer.Option("--against-db", metavar="", help="Also find sagas in flight that this code does not know.")
    ] = False,
    database_url: options.DatabaseUrl = None,
    app_dir: options.AppDir = ".",
    as_json: options.AsJson = False,
) -> None:
    """Check saga definitions without running them, and say what to do about what is found.

    With --against-db: before code is deployed, whether sagas in flight would be left without their definition.

    Exits with 1 when there are errors, with --strict for warnings too. Advice never fails.
    """
    from orchestrator import checking

    sagas = _sagas_of(targets or [], app_dir)
    found = checking.check(sagas)
    if against_db:
        found = [*checking.stranded(asyncio.run(_in_flight(database_url)), sagas), *found]
    if as_json:
        output.print_json(found)
    else:
        _print(found, len(sagas))
    failing = {checking.Level.ERROR, checking.Level.WARNING} if strict else {checking.Level.ERROR}
    if any(one.level in failing for one in found):
        raise typer.Exit(exits.FAILED)


async def _in_flight(database_url: str | None) -> list[InFlight]:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.sql.in_flight import in_flight

    settings = orchestrator_settings(database_url)
    async with opened(settings) as engine, engine.connect() as connection:
        return await connection.run_sync(in_flight, schema=settings.database_schema)


def _sagas_of(targets: list[str], app_dir: str) -> list[type[Saga[Any]]]:
    from orchestrator.app import Orchestrator
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.targets import loaded, loaded_app

    if not targets:
        return list(loaded_app(orchestrator_settings().app, app_dir=app_dir).registry)
    apps = [found for target in targets if isinstance(found := loaded(target, app_dir=app_dir), Orchestrator)]
    if not apps:
        raise CommandError("none of these is an Orchestrator, and sagas are what is checked", exits.USAGE)
    return list(dict.fromkeys(saga for app in apps for saga in app.registry))


def _print(found: list[Finding], sagas: int) -> None:
    from rich.markup import escape

    console = output.console()
    for one in found:
        place = f"{_shown(one.file)}:{one.line}  " if one.line else ""
        whose = f" ({one.saga})" if one.saga else ""
        console.print(f"[{_COLOURS[one.level.value]}]{one.level.value:<7}[/] {escape(place)}", end="", soft_wrap=True)
        console.print(f"[bold]{escape(one.subject)}[/]{escape(whose)}", soft_wrap=True)
        console.print(f"{'':<8}{escape(one.text)}", soft_wrap=True)
        console.print(f"{'':<8}→ {escape(one.remedy)}", soft_wrap=True)
    counts = [(level, sum(one.level.value == level for one in found)) for level in _COLOURS]
    told = ", ".join(f"{count} {level}{_plural(level, count)}" for level, count in counts if count)
    typer.echo(f"{sagas} saga{_plural('saga', sagas)} checked: {told or 'nothing found'}.", err=True)


def _plural(word: str, count: int) -> str:
    return "" if count == 1 or word == "advice" else "s"


def _shown(file: str) -> str:
    """A file as one would type it here."""
    relative = os.path.relpath(file)
    return file if relative.startswith("..") else relative
