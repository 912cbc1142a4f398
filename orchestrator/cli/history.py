"""`saga history`: all that has happened to one saga, in order of time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli import options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.cli.happenings import Happening
    from orchestrator.cli.show import Seen
    from orchestrator.recorded import Recorded


@reported
def history(
    saga_id: options.SagaId,
    *,
    states: Annotated[
        bool, typer.Option("--states", metavar="", help="Also what each step changed in the state; needs --app.")
    ] = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Tell all that has happened to a saga, in order: messages, answers, undos, notes, and what operators asked.

    With --json one line of JSON for each. States are kept where the definition says keep_states = True, and are
    shown without their secrets.
    """
    told = list(_changed(database_url, app, app_dir, saga_id)) if states else []
    seen = asyncio.run(_read(database_url, saga_id))
    happened = sorted([*told, *_happened(seen)], key=lambda one: (one.at, one.order))
    if output.printed_for_programs([_fields(seen, one) for one in happened], as_json=as_json, as_csv=as_csv):
        return
    from orchestrator.cli.happenings import line

    console, day = output.console(), ""
    for one in happened:
        if (that_day := f"{one.at.astimezone(UTC):%Y-%m-%d}") != day:
            day = that_day
            console.print(f"{day} UTC", style="dim")
        console.print(line(one, "  "), soft_wrap=True)


async def _read(database_url: str | None, saga_id: UUID) -> Seen:
    from orchestrator.cli.reading import reader
    from orchestrator.cli.show import seen_saga

    async with reader(database_url) as sagas:
        return await seen_saga(sagas, saga_id)


def _happened(seen: Seen) -> Iterator[Happening]:
    from orchestrator.cli.happenings import Happening, story

    yield Happening(seen.row.started_at, "started", "", f"{seen.row.saga} v{seen.row.version} started", order=(-1, 0))
    yield from story(seen.row, seen.timeline, seen.history)
    for number, asked in enumerate(seen.audit):
        became = f"refused: {asked.refused}" if asked.refused else f"{asked.before} → {asked.after}"
        text = f"{asked.by} asked to {asked.action} it ({asked.reason}): {became}"
        yield Happening(asked.at, "asked", "", text, order=(len(seen.timeline), number))


def _changed(database_url: str | None, app: str | None, app_dir: str, saga_id: UUID) -> Iterator[Happening]:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.happenings import state_changes
    from orchestrator.cli.targets import loaded_app
    from orchestrator.state_story import state_story

    settings = orchestrator_settings(database_url, app)
    registry = loaded_app(settings.app, app_dir=app_dir).registry
    recorded = asyncio.run(_read_states(database_url, saga_id))
    _, story = state_story(recorded, registry)
    if story.note:
        typer.echo(story.note, err=True)
    yield from state_changes(story.steps)


async def _read_states(database_url: str | None, saga_id: UUID) -> Recorded:
    from orchestrator.cli.reading import reader
    from orchestrator.errors import UnknownSaga
    from orchestrator.recorded import read_recorded

    async with reader(database_url) as sagas:
        recorded = await sagas.read(read_recorded, saga_id, states=None)
    if recorded is None:
        raise UnknownSaga(saga_id)
    return recorded


def _fields(seen: Seen, one: Happening) -> dict[str, Any]:
    return {"saga_id": seen.row.saga_id, **one.as_json()}
