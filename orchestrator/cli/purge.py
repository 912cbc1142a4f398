"""`saga purge`: what has ended is deleted, a few sagas at a time, after it was archived if that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import exits, many, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.progress import Progress
from orchestrator.cli.report import reported
from orchestrator.instance import SagaStatus
from orchestrator.retention import TERMINAL, Retention

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from orchestrator.archive import FileArchive
    from orchestrator.purging import Purged
    from orchestrator.settings import OrchestratorSettings


@dataclass(frozen=True, slots=True)
class Pace:
    """How much at once, and how fast."""

    batch: int
    per_second: float


@dataclass(frozen=True, slots=True)
class Found:
    """What may go: trees of sagas and other rows."""

    trees: int
    sagas: Mapping[str, int]
    rest: Mapping[str, int]

    @property
    def text(self) -> str:
        """In words."""
        total = many.counted(sum(self.sagas.values()))
        rest = "".join(f", {what}: {count:,}" for what, count in self.rest.items())
        return f"{total}{_listed(self.sagas)}{rest}"


@reported
def purge(
    *,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            metavar="TIME",
            parser=options.parsed_duration,
            help="Those that ended so long ago: 2h, 30d.",
        ),
    ] = None,
    status: Annotated[
        list[SagaStatus] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            help=f"Only those that ended so: {', '.join(status.value for status in TERMINAL)}; may be repeated.",
        ),
    ] = None,
    archive: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write them there before; else ORCHESTRATOR_ARCHIVE_DIR.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="Sagas in one transaction; else ORCHESTRATOR_PURGE_BATCH."),
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="N", help="Delete at most so many a second; else ORCHESTRATOR_PURGE_PER_SECOND."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", metavar="", help="Tell how many, and do nothing.")] = False,
    yes: options.Yes = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Delete sagas that have ended, with their children and all that hangs on them. Asks before, unless --yes is said.

    Without --older-than it does what the settings ORCHESTRATOR_KEEP_* say, once. Keys stay taken, and the audit stays.
    What has not ended stays, and so does a tree in which one child goes on.

    With an archive each saga is written to a file before it is deleted, without its secrets; that needs --app. Those
    whose definitions it does not have are neither archived nor deleted (exit code 3).
    """
    from orchestrator.cli.config import orchestrator_settings

    settings = orchestrator_settings(database_url, app)
    retention = _meant(settings, older_than, status or [])
    folder = archive or (Path(settings.archive_dir) if settings.archive_dir else None)
    kept = None if folder is None else _archive(folder, settings, app_dir)
    pace = Pace(batch or settings.purge_batch, rate or settings.purge_per_second)
    asyncio.run(_purge(settings, retention, kept, pace, many.Manner(pace.per_second, dry_run, yes, as_json)))


def _meant(settings: OrchestratorSettings, older_than: timedelta | None, statuses: list[SagaStatus]) -> Retention:
    """What is to go.

    Raises:
        CommandError: a status is none of an end, or neither the options nor the settings say what may go.
    """
    if going := [status for status in statuses if not status.terminal]:
        ends = ", ".join(status.value for status in TERMINAL)
        raise CommandError(f"{going[0].value} sagas have not ended, and stay. Say one of: {ends}", exits.USAGE)
    if older_than is not None:
        return Retention(dict.fromkeys(statuses or TERMINAL, older_than))
    retention = settings.retention
    if statuses:
        kept = {status: days for status, days in retention.sagas.items() if status in statuses}
        retention = Retention(kept)
    if not retention.deletes:
        raise CommandError(
            "nothing says what may go: everything is kept for ever. Say --older-than 30d, or set "
            "ORCHESTRATOR_KEEP_COMPLETED_DAYS and the like",
            exits.USAGE,
        )
    return retention


def _archive(folder: Path, settings: OrchestratorSettings, app_dir: str) -> FileArchive:
    from orchestrator.archive import FileArchive
    from orchestrator.cli.targets import loaded_app

    registry = loaded_app(settings.app, app_dir=app_dir).registry
    return FileArchive(folder, registry, schema=settings.database_schema)


async def _purge(
    settings: OrchestratorSettings, retention: Retention, archive: FileArchive | None, pace: Pace, manner: many.Manner
) -> None:
    from orchestrator.cli.database import opened

    async with opened(settings) as engine:
        found = await _found(engine, retention, settings.database_schema)
        if manner.dry_run:
            _tell_found(found, as_json=manner.as_json)
            return
        if not manner.yes and (found.trees or found.rest):
            many.say_yes(f"Delete {found.text}, for good?", "nothing was deleted")
        purged = await _each(engine, retention, archive, pace, settings.database_schema, found)
    _tell(purged, archive, as_json=manner.as_json)


async def _found(engine: AsyncEngine, retention: Retention, schema: str | None) -> Found:
    from orchestrator.sql.purging import count_ended, count_rest

    now, trees, sagas = datetime.now(UTC), 0, dict[str, int]()
    async with engine.connect() as connection:
        for status, kept in retention.sagas.items():
            own, count = await connection.run_sync(count_ended, status, now - kept, schema=schema)
            trees += own
            if count:
                sagas[status.value] = count
        rest = {
            rest.value: await connection.run_sync(count_rest, rest, now - kept, schema=schema)
            for rest, kept in retention.rest.items()
        }
    return Found(trees, sagas, {name: count for name, count in rest.items() if count})


async def _each(
    engine: AsyncEngine,
    retention: Retention,
    archive: FileArchive | None,
    pace: Pace,
    schema: str | None,
    found: Found,
) -> Purged:
    from orchestrator.purging import Purged, Purger
    from orchestrator.sql.store import SqlStore

    store = SqlStore(engine, schema=schema, runs_engine=False)
    purger = Purger(store, retention, archive=archive, batch=pace.batch, per_second=pace.per_second)
    purged = Purged()
    try:
        with Progress(sum(found.sagas.values())) as progress:
            async for one in purger.run():
                purged += one
                progress.show(purged.sagas.total())
    except BaseException:
        typer.echo(f"deleted before that: {many.counted(purged.sagas.total())}. The rest is as it was", err=True)
        raise
    finally:
        await store.close()
    return purged


def _tell_found(found: Found, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"would_delete": found.sagas, "rest": found.rest})
    else:
        typer.echo(f"would delete {found.text}")
    typer.echo("Nothing was done.", err=True)


def _tell(purged: Purged, archive: FileArchive | None, *, as_json: bool) -> None:
    sagas = {status.value: count for status, count in purged.sagas.items() if count}
    rest = {what.value: count for what, count in purged.rest.items() if count}
    if as_json:
        told: dict[str, Any] = {
            "deleted": sagas,
            "rest": rest,
            "left": purged.left,
            "not_archived": purged.not_archived,
        }
        output.print_json(told)
    else:
        typer.echo(f"deleted {Found(0, sagas, rest).text}")
    if archive is not None and sagas:
        typer.echo(f"Archived in {archive.folder}", err=True)
    if purged.left:
        reason = "a child of theirs goes on, or something is still to be told to one of them"
        typer.echo(f"left: {purged.left:,}, since {reason}", err=True)
    if purged.not_archived:
        raise CommandError(
            f"not archived, and so not deleted: {purged.not_archived:,}, whose definitions are not there. "
            "Purge them with the code they were run by",
            exits.NOT_FOUND,
        )


def _listed(counts: Mapping[str, int]) -> str:
    told = ", ".join(f"{what}: {count:,}" for what, count in counts.items())
    return f" ({told})" if told else ""
