"""What a saga did, as a picture: a bar for each direction of each step, over time.

Colours are of a palette that colour-blind people tell apart, and each kind has a pattern and a sign as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape
from typing import Final

from markupsafe import Markup

from orchestrator.instance import Direction, StepStatus
from orchestrator.status import HistoryRow, SagaRow, TimelineRow
from orchestrator.words import duration

MOST_ROWS: Final = 200
_WIDTH, _LABELS, _ROOM = 1000.0, 230.0, 130.0
_ROW, _TOP, _BAR = 30.0, 26.0, 16.0
_TICKS: Final = 4
_LEAST: Final = 4.0
_LONGEST_LABEL: Final = 30
_TRIED: Final = ("retry", "timeout")
_SIGNS: Final = {"forward": "✓", "undo": "↩", "failed": "✗", "unknown": "?", "open": "…", "idle": "·"}
PATTERNS: Final = Markup(
    '<svg class="patterns" aria-hidden="true" focusable="false"><defs>'
    '<pattern id="hatched" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="undo" width="6" height="6"/><path class="stripe" d="M0 0V6"/></pattern>'
    '<pattern id="crossed" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="failed" width="7" height="7"/><path class="stripe" d="M0 0V7M0 0H7"/></pattern>'
    "</defs></svg>"
)
_FILLS: Final = {"undo": "url(#hatched)", "failed": "url(#crossed)", "unknown": "url(#crossed)"}


@dataclass(frozen=True, slots=True)
class _Scale:
    begins: datetime
    ends: datetime

    def x(self, at: datetime) -> float:
        span = max(self.ends - self.begins, timedelta(milliseconds=1))
        part = (at - self.begins) / span
        return _LABELS + max(0.0, min(1.0, part)) * (_WIDTH - _LABELS - _ROOM)


def gantt(saga: SagaRow, timeline: Sequence[TimelineRow], history: Sequence[HistoryRow], now: datetime) -> Markup:
    """Draw it; of very many rows the first ones."""
    rows = timeline[:MOST_ROWS]
    scale = _Scale(saga.started_at, saga.ended_at or max(now, saga.updated_at))
    height = _TOP + _ROW * len(rows) + 6
    body = [*_axis(scale, height)]
    for number, row in enumerate(rows):
        body += _row(row, [note for note in history if _is_of(note, row)], scale, _TOP + _ROW * number)
    label = f"Timeline of {len(rows)} rows over {duration(scale.ends - scale.begins)}; the table below has the same"
    size = f'viewBox="0 0 {_WIDTH:.0f} {height:.0f}"'
    return Markup(f'<svg class="gantt" {size} role="img" aria-label="{escape(label)}">') + Markup(
        "".join(body) + "</svg>"
    )


def kind_of(row: TimelineRow) -> str:
    """What a row is drawn as: forward, undo, failed, unknown, open or idle."""
    if row.status in (StepStatus.REFUSED, StepStatus.EXPIRED):
        return "failed"
    if row.status is StepStatus.UNKNOWN:
        return "unknown"
    if row.status in (StepStatus.SKIPPED, StepStatus.CANCELLED):
        return "idle"
    if row.status is StepStatus.WAITING:
        return "open"
    return "undo" if row.direction is Direction.COMPENSATION else "forward"


def name_of(row: TimelineRow) -> str:
    """A row's step, with the item it is for."""
    return f"{row.step}[{row.branch}]" if row.branch else row.step


def _is_of(note: HistoryRow, row: TimelineRow) -> bool:
    within = row.started_at <= note.at and (row.ended_at is None or note.at <= row.ended_at)
    return within and note.kind in _TRIED and note.step in (row.step, name_of(row))


def _axis(scale: _Scale, height: float) -> Iterator[str]:
    for number in range(_TICKS + 1):
        at = scale.begins + (scale.ends - scale.begins) * number / _TICKS
        x = scale.x(at)
        yield f'<path class="grid" d="M{x:.1f} {_TOP - 6:.0f}V{height:.0f}"/>'
        words = "start" if number == 0 else f"+{duration(at - scale.begins)}"
        yield f'<text class="tick" x="{x:.1f}" y="13" text-anchor="middle">{escape(words)}</text>'


def _row(row: TimelineRow, tried: Sequence[HistoryRow], scale: _Scale, top: float) -> Iterator[str]:
    kind, left = kind_of(row), scale.x(row.started_at)
    width = max(_LEAST, scale.x(row.ended_at or scale.ends) - left)
    bar, middle = top + (_ROW - _BAR) / 2, top + _ROW / 2 + 4
    yield f"<g><title>{escape(_told(row))}</title>"
    undo = "↩ " if row.direction is Direction.COMPENSATION else ""
    yield f'<text class="label" x="0" y="{middle:.1f}">{escape(_short(undo + name_of(row)))}</text>'
    box = f'x="{left:.1f}" y="{bar:.1f}" width="{width:.1f}" height="{_BAR:.0f}" rx="3"'
    fill = f' fill="{_FILLS[kind]}"' if kind in _FILLS else ""
    going = " going" if row.ended_at is None else ""
    yield f'<rect class="bar {kind}{going}" {box}{fill}/>'
    for note in tried:
        x = scale.x(note.at)
        yield f'<path class="attempt" d="M{x:.1f} {bar - 3:.1f}v{_BAR + 6:.0f}"/>'
    sign = "…" if row.ended_at is None else _SIGNS[kind]
    took = duration((row.ended_at or scale.ends) - row.started_at)
    words = f"{sign} {took}" + (f", {row.attempt} attempts" if row.attempt > 1 else "")
    yield f'<text class="took" x="{left + width + 6:.1f}" y="{middle:.1f}">{escape(words)}</text></g>'


def _told(row: TimelineRow) -> str:
    undo = "undo of " if row.direction is Direction.COMPENSATION else ""
    problem = f": {row.error_text or row.error_code}" if row.error_text or row.error_code else ""
    return f"{undo}{name_of(row)}, {row.status.value}{problem}"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else f"{text[: _LONGEST_LABEL - 1]}…"
