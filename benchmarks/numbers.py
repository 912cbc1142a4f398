"""Percentiles, tables, processor time."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share (0 to 100) of an ordered sequence lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share / 100))]


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table that reads well as text too."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


class Cpu:
    """Processor time of this process and of others, since this was made."""

    def __init__(self, *others: int) -> None:
        self._others = others
        self._begun = self._now()

    def micros(self) -> float:
        """Microseconds used so far; the others must still run."""
        return (self._now() - self._begun) * 1e6

    def _now(self) -> float:
        return time.process_time() + sum(map(seconds_of, self._others))


def seconds_of(pid: int, *, with_children: bool = False) -> float:
    """Processor time of a process, and of those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11 : 15 if with_children else 13])) / os.sysconf("SC_CLK_TCK")


class Memory(NamedTuple):
    """Resident memory of a process, in MiB."""

    now: float
    peak: float
    """The most so far."""


def memory_of(pid: int) -> Memory:
    """What a process that runs uses."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Memory(*(int(lines[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM")))
