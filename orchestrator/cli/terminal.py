"""Consoles that show what others wrote as text, and tables that fit the terminal they are printed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderableType, RenderHook, RenderResult
from rich.padding import Padding
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from messaging.printable import printable

_PLAIN_WIDTH: Final = 400
"""Lines that programs read are not wrapped."""
_LEAST_WIDTH: Final = 24
"""A column that may be folded is not made narrower than this."""

_GAP: Final = Text("  ")


def console(*, stderr: bool) -> Console:
    """Where to print: colours on a terminal, plain text that is never cut elsewhere."""
    made = Console(stderr=stderr, highlight=False, emoji=False)
    if not made.is_terminal:
        made = Console(stderr=stderr, highlight=False, emoji=False, width=_PLAIN_WIDTH, no_color=True)
    made.push_render_hook(_AsText())
    return made


class _AsText(RenderHook):
    """Has whatever is printed go through `_Shown`."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Shown(one) for one in renderables]


@dataclass(frozen=True)
class _Shown:
    """Something to print, of which only its style may steer the terminal."""

    inner: ConsoleRenderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.inner, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


class Rows(Table):
    """A table whose cells have one line each, until they are folded."""

    def add_row(self, *cells: RenderableType | None, **looks: Any) -> None:
        """Add a row of texts."""
        super().add_row(*map(_cell, cells), **looks)


def _cell(shown: RenderableType | None) -> Text:
    text = shown if isinstance(shown, Text) else Text(str(shown or ""))
    return text if text.plain.isprintable() else Text(printable(" ".join(text.plain.split())), text.style)


def print_table(console: Console, table: Table) -> None:
    """Print a table; where the terminal is too narrow for its columns, each row as a paragraph."""
    if _needed(table) <= console.width:
        console.print(table)
        return
    console.print(Text("  ".join(filter(None, (str(column.header) for column in table.columns))), "dim"))
    for row in zip(*(column.cells for column in table.columns), strict=True):
        _print_paragraph(console, table.columns, [cell for cell in row if isinstance(cell, Text)])


def _print_paragraph(console: Console, columns: Sequence[Column], cells: Sequence[Text]) -> None:
    """A row in one line, if it has room; else what is short in a line, and what may be long below it."""
    whole = _GAP.join(filter(None, cells))
    if whole.cell_len <= console.width:
        console.print(whole)
        return
    console.print(_GAP.join(cell for column, cell in zip(columns, cells, strict=True) if column.no_wrap and cell))
    for column, cell in zip(columns, cells, strict=True):
        if cell and not column.no_wrap:
            console.print(Padding(cell, (0, 0, 0, 4)))


def _needed(table: Table) -> int:
    return sum(_width(column) + _GAP.cell_len for column in table.columns)


def _width(column: Column) -> int:
    widest = max(cell_len(str(cell)) for cell in (column.header, *column.cells))
    return widest if column.no_wrap else min(widest, _LEAST_WIDTH)
