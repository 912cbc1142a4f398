"""How many sagas ended in each hour, as a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final

from markupsafe import Markup

from orchestrator.instance import SagaStatus
from orchestrator.web.surveys import Hour

_WIDTH, _HEIGHT, _BOTTOM, _TOP = 1120.0, 190.0, 24.0, 16.0
_KINDS: Final = {
    "forward": (SagaStatus.COMPLETED,),
    "undo": (SagaStatus.COMPENSATED, SagaStatus.COMPENSATED_WITH_EXCEPTIONS),
    "failed": (SagaStatus.ABANDONED,),
}
_FILLS: Final = {"undo": ' fill="url(#hatched)"', "failed": ' fill="url(#crossed)"', "forward": ""}
_EVERY: Final = 6


def chart(hours: Sequence[Hour]) -> Markup:
    """Draw them, one bar for each hour: completed below, undone and abandoned above."""
    most = max([sum(hour.ended.values()) for hour in hours] or [0])
    each = _WIDTH / max(1, len(hours))
    body: list[str] = []
    for number, hour in enumerate(hours):
        body += _bar(hour, number * each, each, most or 1)
        if number % _EVERY == 0:
            body.append(f'<text class="tick" x="{number * each:.0f}" y="{_HEIGHT - 5:.0f}">{hour.begins:%H:%M}</text>')
    body.append(f'<text class="tick" x="{_WIDTH:.0f}" y="{_HEIGHT - 5:.0f}" text-anchor="end">now, UTC</text>')
    body.append(f'<path class="grid" d="M0 {_HEIGHT - _BOTTOM:.0f}H{_WIDTH:.0f}"/>')
    total = sum(sum(hour.ended.values()) for hour in hours)
    words = escape(f"{total} sagas ended in the last {len(hours)} hours, {most} in the busiest one")
    size = f'viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}"'
    return Markup(f'<svg class="hours" {size} role="img" aria-label="{words}">{"".join(body)}</svg>')


def _bar(hour: Hour, left: float, each: float, most: int) -> Iterator[str]:
    y, full = _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM - _TOP
    told = ", ".join(f"{count} {status}" for status, count in sorted(hour.ended.items()))
    yield f"<g><title>{hour.begins:%H:%M}: {escape(told or 'none')}</title>"
    for kind, statuses in _KINDS.items():
        height = full * sum(hour.ended.get(status.value, 0) for status in statuses) / most
        if height:
            y -= height
            box = f'x="{left + 2:.1f}" y="{y:.1f}" width="{each - 4:.1f}" height="{height:.1f}"'
            yield f'<rect class="bar {kind}" {box}{_FILLS[kind]}/>'
    yield "</g>"
