"""`saga history`: all that has happened to one saga, in order of time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC
from typing import TYPE_CHECKING, Any
from uuid import UUID

from orchestrator.cli import options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.cli.happenings import Happening
    from orchestrator.cli.show import Seen


@reported
def history(
    saga_id: options.SagaId,
    *,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Tell all that has happened to a saga, in order: messages, answers, undos, notes, and what operators asked.

    With --json one line of JSON for each.
    """
    seen = asyncio.run(_read(database_url, saga_id))
    happened = sorted(_happened(seen), key=lambda one: (one.at, one.order))
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


def _fields(seen: Seen, one: Happening) -> dict[str, Any]:
    return {"saga_id": seen.row.saga_id, **one.as_json()}
