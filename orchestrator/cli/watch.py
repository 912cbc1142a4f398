"""`saga watch`: what happens to a saga, or to all of them, as it happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported
from orchestrator.instance import SagaStatus

if TYPE_CHECKING:
    from orchestrator.cli.happenings import Happening
    from orchestrator.status import SagaRow, StatusReader

_LOOK_EVERY_SECONDS: Final = 0.2
_LOOK_AT_ALL_EVERY_SECONDS: Final = 0.5
_NEWEST: Final = 500


@reported
def watch(
    saga_id: Annotated[
        UUID | None,
        typer.Argument(metavar="[ID]", parser=options.parsed_id, help="The saga's id.", show_default=False),
    ] = None,
    *,
    all_sagas: Annotated[bool, typer.Option("--all", metavar="", help="Every saga, until Ctrl-C.")] = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Follow a saga until it ends, or with --all every saga. With --json one line of JSON for each change."""
    if (saga_id is None) is not all_sagas:
        raise CommandError("say which saga to watch: saga watch ID, or saga watch --all", exits.USAGE)
    if saga_id is None:
        asyncio.run(_watch_all(database_url, as_json))
    else:
        asyncio.run(_watch(database_url, saga_id, as_json))


async def _watch(database_url: str | None, saga_id: UUID, as_json: bool) -> None:
    from orchestrator.cli.happenings import line
    from orchestrator.cli.reading import reader

    console = output.console()
    async with reader(database_url) as sagas:
        async for one in followed(sagas, saga_id, look_every=_LOOK_EVERY_SECONDS):
            if as_json:
                output.print_json({"saga_id": saga_id, **one.as_json()})
            else:
                console.print(line(one), soft_wrap=True)


async def followed(
    sagas: StatusReader, saga_id: UUID, *, look_every: float, until_blocked: bool = False
) -> AsyncIterator[Happening]:
    """What has happened to a saga, and then what happens, until it ends.

    Args:
        sagas: where to read.
        saga_id: which one.
        look_every: so many seconds.
        until_blocked: end as well when the saga needs an operator.

    Raises:
        UnknownSaga: none has this id.
    """
    from orchestrator.cli.happenings import Follower, story
    from orchestrator.cli.show import seen_saga

    follower = Follower()
    while True:
        seen = await seen_saga(sagas, saga_id)
        for one in follower.news(story(seen.row, seen.timeline, seen.history)):
            yield one
        if seen.row.status.terminal or (until_blocked and seen.row.status is SagaStatus.BLOCKED):
            return
        await asyncio.sleep(look_every)


async def _watch_all(database_url: str | None, as_json: bool) -> None:
    from orchestrator.cli.reading import reader

    seen: dict[UUID, tuple[str, str]] = {}
    first = True
    async with reader(database_url) as sagas:
        while True:
            for row in await _newest(sagas):
                stands = (row.status.value, row.current_step or "")
                if seen.get(row.saga_id) != stands and not (first and row.status.terminal):
                    _tell(row, as_json)
                seen[row.saga_id] = stands
            first = False
            await asyncio.sleep(_LOOK_AT_ALL_EVERY_SECONDS)


async def _newest(sagas: StatusReader) -> list[SagaRow]:
    """The newest sagas, the oldest of them first."""
    rows: list[SagaRow] = []
    async for row in sagas.list(page_size=_NEWEST):
        rows.append(row)
        if len(rows) == _NEWEST:
            break
    return rows[::-1]


def _tell(row: SagaRow, as_json: bool) -> None:
    if as_json:
        output.print_json(row)
        return
    from rich.text import Text

    from orchestrator.cli.describe import first_cause

    status = row.status.value
    told = Text(output.clock_time(datetime.now(UTC)), "dim").append(f"  {row.saga} ", "bold")
    told.append(f"{row.business_key or row.saga_id} ").append(status, output.status_style(status))
    output.console().print(told.append(f"  {row.current_step or first_cause(row)}"), soft_wrap=True)
