"""How far something is that takes a while, on stderr: its rate and when it may be done."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final, Self

import typer

from orchestrator.words import duration

_EVERY_SECONDS: Final = 2.0
_WIDTH: Final = 20
_ERASE: Final = "\r\x1b[K"


class Progress:
    """A bar at the end of a terminal, and a line now and then where there is none; what is quick tells nothing.

    A context manager, so that no bar is left behind. Before anything else is printed call `clear`.

    Args:
        total: how many there are; None if nobody knows.
        terminal: whether stderr is one.
        clock: tells seconds, and does not go back.
    """

    def __init__(
        self, total: int | None, *, terminal: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._total, self._clock, self._begun = total, clock, clock()
        self._terminal = sys.stderr.isatty() if terminal is None else terminal
        self._told_at, self._drawn = self._begun, False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def show(self, done: int) -> None:
        """Tell that so many are done."""
        now = self._clock()
        if now - self._told_at < _EVERY_SECONDS or not 0 < done != self._total:
            return
        told = self._told(done, done / (now - self._begun))
        if self._terminal:
            self.clear()
            typer.echo(f"{self._bar(done)}{told}", nl=False, err=True)
            self._drawn = True
        else:
            self._told_at = now
            typer.echo(told, err=True)

    def clear(self) -> None:
        """Take the bar away; the next `show` draws it again."""
        if self._drawn:
            typer.echo(_ERASE, nl=False, err=True, color=True)
        self._drawn = False

    def _told(self, done: int, rate: float) -> str:
        if self._total is None:
            return f"{done:,} so far, {rate:,.3g} a second"
        left = timedelta(seconds=(self._total - done) / rate)
        return f"{done:,} of {self._total:,}, {rate:,.3g} a second, about {duration(left)} to go"

    def _bar(self, done: int) -> str:
        if not self._total:
            return ""
        full = min(_WIDTH, _WIDTH * done // self._total)
        return f"{'█' * full}{'░' * (_WIDTH - full)}  "
