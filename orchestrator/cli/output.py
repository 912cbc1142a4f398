"""What commands print: JSON for programs; colours and tables for people, plain where there is no terminal."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import typer

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from orchestrator.sql.search import Found


def console(*, stderr: bool = False) -> Console:
    """Where to print: colours on a terminal, plain text that is never cut elsewhere. Others' text steers neither."""
    from orchestrator.cli import terminal

    return terminal.console(stderr=stderr)


def table(*headings: str, terminal: bool, folds: int = -1) -> Table:
    """A table: ruled on a terminal, columns of text elsewhere. One column may be folded, by default the last."""
    from rich import box

    from orchestrator.cli.terminal import Rows

    made = Rows(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 1 if terminal else 2, 0, 0))
    for heading in headings:
        made.add_column(heading, overflow="fold", no_wrap=True)
    made.columns[folds].no_wrap = False
    return made


def print_table(console: Console, table: Table) -> None:
    """Print a table; where there is no terminal, without spaces at the ends of lines."""
    from orchestrator.cli import terminal

    if console.is_terminal:
        terminal.print_table(console, table)
        return
    with console.capture() as captured:
        console.print(table)
    for row in captured.get().splitlines():
        typer.echo(row.rstrip(), err=console.stderr)


def say(text: str, *, err: bool = False) -> None:
    """Print a line for people that may hold what others wrote."""
    from messaging.printable import printable

    typer.echo(printable(text), err=err)


def tell_scans(found: Iterable[Found]) -> None:
    """Say for which fields states have to be read."""
    for one in found:
        typer.echo(one.notice(), err=True)


def print_json(value: Any) -> None:
    """Print one JSON document on a line of its own."""
    typer.echo(json_text(value))


def printed_for_programs(rows: Sequence[Any], *, as_json: bool, as_csv: bool) -> bool:
    """Print rows as lines of JSON, or as CSV below their names; False if neither is asked for.

    In CSV lists are JSON, and what is missing is empty.

    Raises:
        CommandError: both are asked for.
    """
    if as_json and as_csv:
        raise CommandError("--json and --csv exclude each other", exits.USAGE)
    plain_rows = [plain(row) for row in rows] if as_json or as_csv else []
    if as_csv and plain_rows:
        lines = io.StringIO()
        writer = csv.DictWriter(lines, list(plain_rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _cell(value) for name, value in row.items()} for row in plain_rows)
        typer.echo(lines.getvalue(), nl=False)
    for row in plain_rows if as_json else ():
        typer.echo(json_text(row))
    return as_json or as_csv


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict, bool)) else value


def json_text(value: Any) -> str:
    """Write a value as JSON; ids and instants as they stand in the database."""
    from messaging.printable import printable_json

    return printable_json(json.dumps(plain(value), ensure_ascii=False))


def plain(value: Any) -> Any:
    """Turn a value into what JSON has."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)  # type: ignore[redundant-cast] # pyright sees it as unknown
        return {str(key): plain(item) for key, item in mapping.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in cast("Sequence[Any]", value)]
    return value


def instant(value: datetime) -> str:
    """An instant as the database has it, UTC with microseconds."""
    from orchestrator.sql.types import instant_text

    return instant_text(value)


def clock_time(value: datetime) -> str:
    """The time of day, UTC, to the millisecond."""
    return instant(value)[11:23]


def status_style(status: str) -> str:
    """The colour of a status."""
    styles = {"completed": "green", "blocked": "bold red", "abandoned": "red", "running": "cyan"}
    return styles.get(status, "yellow")
