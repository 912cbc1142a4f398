"""`saga failures`: what went wrong, with the sagas that failed alike counted together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import options, output
from orchestrator.cli.report import reported
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.failures import FailureGroup


@reported
def failures(
    *,
    saga: options.SagaName = None,
    everything: Annotated[
        bool, typer.Option("--all", metavar="", help="Those too that turned back by themselves, not only the blocked.")
    ] = False,
    since: options.Since = None,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """Group sagas that failed alike: the same saga, step and error, numbers and ids aside.

    With --json one line of JSON for each group, with the ids. The newest 10,000 sagas are looked at.
    """
    groups = asyncio.run(_read(database_url, saga, everything, since))
    if output.printed_for_programs(groups, as_json=as_json, as_csv=as_csv):
        return
    if not groups:
        typer.echo("No saga has failed." if everything else "No saga is blocked.", err=True)
        return
    _print_table(output.console(), groups)


async def _read(
    database_url: str | None, saga: str | None, everything: bool, since: timedelta | None
) -> Sequence[FailureGroup]:
    from orchestrator.cli.reading import reader
    from orchestrator.failures import failures

    async with reader(database_url) as sagas:
        return await sagas.read(
            failures,
            saga=saga,
            blocked_only=not everything,
            since=None if since is None else datetime.now(UTC) - since,
            schema=sagas.schema,
        )


def _print_table(console: Console, groups: Sequence[FailureGroup]) -> None:
    from rich.text import Text

    headings = ("sagas", "saga", "at", "error", "last", "one of them")
    table = output.table(*headings, terminal=console.is_terminal, folds=headings.index("error"))
    for group in groups:
        error = ": ".join(part for part in (group.reason, group.error_code, group.error_text) if part)
        ago = f"{duration(datetime.now(UTC) - group.last)} ago"
        table.add_row(str(group.count), Text(group.saga), Text(group.step), Text(error), ago, str(group.saga_ids[0]))
    output.print_table(console, table)
