"""`saga stats`: how long sagas and their steps take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from orchestrator.cli import options, output
from orchestrator.cli.report import reported
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.holds import Hold
    from orchestrator.latencies import Latency

_SHARES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_WIDTH: Final = 40


@reported
def stats(
    *,
    saga: options.SagaName = None,
    steps: Annotated[bool, typer.Option("--steps", metavar="", help="Each step and undo by itself.")] = False,
    since: options.Since = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Tell how long sagas took that have ended, or their steps: how many, percentiles, a histogram.

    Percentiles are the upper bounds of buckets, three for each power of ten. Waits and pauses count.
    """
    found, held = asyncio.run(_read(database_url, saga, steps, since))
    for hold in held:
        output.say(f"{hold.which} is held: its sagas do not begin. Since when, and why: saga holds", err=True)
    if output.printed_for_programs(list(map(_fields, found)), as_json=as_json, as_csv=as_csv):
        return
    if not found:
        typer.echo("No saga has ended yet.", err=True)
        return
    console = output.console()
    _print_table(console, found)
    for one in found if saga is not None or len(found) == 1 else ():
        _print_histogram(one)


async def _read(
    database_url: str | None, saga: str | None, steps: bool, since: timedelta | None
) -> tuple[Sequence[Latency], Sequence[Hold]]:
    from orchestrator.cli.reading import reader
    from orchestrator.latencies import latencies
    from orchestrator.sql.holds import held

    async with reader(database_url) as sagas:
        found = await sagas.read(
            latencies,
            saga=saga,
            steps=steps,
            since=None if since is None else datetime.now(UTC) - since,
            schema=sagas.schema,
        )
        holds = await sagas.read(held, sagas.schema)
        return found, [one for one in holds if saga in (None, one.saga)]


def _fields(one: Latency) -> dict[str, Any]:
    """What programs are given: seconds."""
    shares = {name: one.percentile(share) for name, share in _SHARES.items()}
    named = {"saga": one.saga, "step": one.step, "direction": one.direction, "count": one.count, "mean": one.mean}
    return {**named, **shares, "longest": one.longest, "buckets": one.buckets}


def _print_table(console: Console, found: Sequence[Latency]) -> None:
    from rich.text import Text

    table = output.table("saga", "step", "ended", "mean", *_SHARES, "longest", terminal=console.is_terminal)
    for one in found:
        took = [one.mean, *map(one.percentile, _SHARES.values()), one.longest]
        table.add_row(Text(one.saga), Text(_step(one)), str(one.count), *map(_told, took))
    output.print_table(console, table)


def _step(one: Latency) -> str:
    return f"↩ {one.step}" if one.direction == "compensation" else one.step


def _print_histogram(one: Latency) -> None:
    most = max(count for _, count in one.buckets)
    output.say(f"\n{one.saga} {_step(one)}".rstrip())
    for bound, count in one.buckets:
        bar = "█" * max(1, round(_WIDTH * count / most))
        typer.echo(f"  up to {_told(bound):>12}  {count:>9}  {bar}")


def _told(seconds: float) -> str:
    return duration(timedelta(seconds=seconds))
