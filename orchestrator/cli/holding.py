"""`saga hold`, `saga release` and `saga holds`: definitions whose sagas do not begin for now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from orchestrator.cli import acting, many, options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.holds import Hold

Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="The saga's name, such as create-order.")]
Version: TypeAlias = Annotated[
    int | None, typer.Option("--version", metavar="VERSION", help="This one alone; else all.", show_default=False)
]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it is kept with the hold.", show_default=False)
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Tell how many sagas it concerns, and do nothing.")
]


@reported
def hold(
    name: Name,
    *,
    reason: Reason,
    version: Version = None,
    dry_run: DryRun = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Keep sagas of a definition from beginning until it is released.

    Starting them is accepted all the same: they wait. Sagas that have begun go on, with those that they start.
    Every engine heeds it within a second. Refused when just that is held already (exit code 4).
    """
    from orchestrator.holds import named

    async def work() -> tuple[Sequence[Hold], int]:
        async with many.client(database_url) as sagas:
            held = [] if dry_run else [await sagas.hold(name, version=version, reason=reason, by=acting.who())]
            return held, await sagas.not_begun(name, version=version)

    held, waiting = asyncio.run(work())
    _tell(held, as_json=as_json)
    if not asyncio.run(_known(name, version, database_url)):
        told = f"No engine that was heard of in the last minute has {named(name, version)}. Is it written right?"
        typer.echo(told, err=True)
    _tell_waiting(waiting, dry_run=dry_run)


@reported
def release(
    name: Name,
    *,
    reason: Reason,
    version: Version = None,
    dry_run: DryRun = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Let sagas of a definition that is held begin again, those that wait first.

    Without --version whatever is held of this name is released. Refused when nothing is (exit code 4).
    """

    async def work() -> tuple[Sequence[Hold], int]:
        async with many.client(database_url) as sagas:
            waiting = await sagas.not_begun(name, version=version)
            if dry_run:
                return [], waiting
            return await sagas.release(name, version=version, reason=reason, by=acting.who()), waiting

    released, waiting = asyncio.run(work())
    _tell(released, as_json=as_json)
    _tell_waiting(waiting, dry_run=dry_run)


@reported
def holds(
    *, database_url: options.DatabaseUrl = None, as_json: options.AsJson = False, as_csv: options.AsCsv = False
) -> None:
    """Tell which definitions are held: since when, by whom, and why."""

    async def work() -> Sequence[Hold]:
        async with many.client(database_url) as sagas:
            return await sagas.holds()

    found = asyncio.run(work())
    _tell(found, as_json=as_json, as_csv=as_csv)
    if not found:
        typer.echo("Nothing is held.", err=True)


async def _known(name: str, version: int | None, database_url: str | None) -> bool:
    from orchestrator.cli.reading import reader
    from orchestrator.sql.versions import live_workers
    from orchestrator.workers import DEAD_AFTER

    async with reader(database_url) as sagas:
        workers = await sagas.read(live_workers, datetime.now(UTC), DEAD_AFTER, schema=sagas.schema)
    return any(pin.name == name and version in (None, pin.version) for worker in workers for pin in worker.pins)


def _tell(holds: Sequence[Hold], *, as_json: bool, as_csv: bool = False) -> None:
    from orchestrator.asking_holds import told

    if not output.printed_for_programs(holds, as_json=as_json, as_csv=as_csv):
        for one in holds:
            output.say(f"{one.which}  held since {told(one)}")


def _tell_waiting(waiting: int, *, dry_run: bool) -> None:
    typer.echo(f"Not begun: {many.counted(waiting)}.{' Nothing was done.' if dry_run else ''}", err=True)
