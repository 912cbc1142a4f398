"""What became of each step in one saga, for its graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from orchestrator.graph import Happened
from orchestrator.instance import Direction
from orchestrator.status import TimelineRow
from orchestrator.web.gantt import kind_of

_WORDS: Final = {
    "failed": "✗ failed",
    "unknown": "? unknown",
    "open": "… under way",
    "undo": "↩ undone",
    "forward": "✓ done",
    "idle": "· not taken",
}
"""The worst first: of a step for many items it gives the colour."""
_UNDOING: Final = {
    "failed": "✗ undo failed",
    "unknown": "? undo unknown",
    "open": "… being undone",
    "idle": "· not undone",
}


def happened(timeline: Sequence[TimelineRow]) -> dict[str, Happened]:
    """What became of each step that has begun, by its name: its undo decides, if there is one; items are counted."""
    last: dict[tuple[str, str], TimelineRow] = {}
    for row in timeline:
        known = last.get((row.step, row.branch))
        if known is None or row.direction is Direction.COMPENSATION:
            last[row.step, row.branch] = row
    steps: dict[str, list[TimelineRow]] = {}
    for row in last.values():
        steps.setdefault(row.step, []).append(row)
    return {step: _of(rows) for step, rows in steps.items()}


def _of(rows: Sequence[TimelineRow]) -> Happened:
    counts = Counter((_kind(row), _told(row)) for row in rows)
    ranked = sorted(counts, key=lambda one: list(_WORDS).index(one[0]))
    words = (f"{told} ({counts[kind, told]})" if len(rows) > 1 else told for kind, told in ranked)
    return Happened(ranked[0][0], ", ".join(words))


def _kind(row: TimelineRow) -> str:
    kind = kind_of(row)
    return "open" if row.ended_at is None and kind in ("forward", "undo") else kind


def _told(row: TimelineRow) -> str:
    kind = _kind(row)
    undoing = row.direction is Direction.COMPENSATION
    return _UNDOING.get(kind, _WORDS[kind]) if undoing else _WORDS[kind]
