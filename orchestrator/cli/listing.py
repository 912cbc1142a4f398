"""`saga list`: sagas, newest first."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from orchestrator.cli import options, output
from orchestrator.cli.report import reported
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.status import SagaFilter, SagaRow


@reported
def list_sagas(
    *,
    saga: options.SagaName = None,
    status: options.Status = None,
    key: options.Key = None,
    at: options.At = None,
    error: options.Error = None,
    where: options.Where = None,
    older_than: options.OlderThan = None,
    after: Annotated[
        UUID | None,
        typer.Option(metavar="ID", parser=options.parsed_id, help="Only those below this one: the next page."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """List sagas, newest first. With --json one line of JSON each. The next page comes --after the last id of this one.

    What the state says is found with --where, by an index where the field is marked as Searchable; else all states are
    read, which is told.
    """
    from orchestrator.status import SagaFilter

    before = None if older_than is None else datetime.now(UTC) - older_than
    where_in_state = options.parsed_where(where)
    which = SagaFilter(saga, status, key, at, error, started_before=before, where=where_in_state)
    rows = asyncio.run(_read(database_url, which, after, limit + 1))
    if not output.printed_for_programs(rows[:limit], as_json=as_json, as_csv=as_csv) and rows:
        print_table(output.console(), rows[:limit])
    if not rows:
        typer.echo("No sagas match.", err=True)
    elif len(rows) > limit:
        typer.echo(f"There are more. The next page: --after {rows[limit - 1].saga_id}", err=True)


async def _read(database_url: str | None, which: SagaFilter, after: UUID | None, limit: int) -> list[SagaRow]:
    from orchestrator.cli.reading import reader

    rows: list[SagaRow] = []
    async with reader(database_url) as sagas:
        output.tell_scans(await sagas.scanned(which))
        async for row in sagas.list(which, after=after, page_size=min(limit, 500)):
            rows.append(row)
            if len(rows) == limit:
                break
    return rows


def print_table(console: Console, rows: Iterable[SagaRow]) -> None:
    """Print a line for each saga; on a terminal, below headings."""
    from rich.text import Text

    from orchestrator.cli.describe import age, first_cause

    table = output.table("id", "saga", "key", "status", "age", "at, or why", terminal=console.is_terminal)
    for row in rows:
        status = Text(row.status.value, output.status_style(row.status.value))
        why = Text(row.current_step or first_cause(row))
        key = Text(row.business_key or "")
        table.add_row(str(row.saga_id), Text(row.saga), key, status, duration(age(row)), why)
    output.print_table(console, table)
