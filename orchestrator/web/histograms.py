"""How long the sagas of one name took, as a picture: a bar for each span of time, three for each power of ten."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from html import escape
from typing import Final

from markupsafe import Markup

from orchestrator.latencies import BOUNDS, Latency
from orchestrator.words import duration

_EACH, _HEIGHT, _BOTTOM, _TOP = 56.0, 110.0, 20.0, 16.0
_LEAST: Final = 2.0


def histogram(one: Latency) -> Markup:
    """Draw it, from the shortest span in which a saga ended to the longest."""
    counts = {_number(bound): (bound, count) for bound, count in one.buckets}
    spans = range(min(counts), max(counts) + 1)
    most, width = max(count for _, count in counts.values()), _EACH * len(spans)
    body: list[str] = []
    for place, number in enumerate(spans):
        bound, count = counts.get(number, (BOUNDS[min(number, len(BOUNDS) - 1)], 0))
        body += _bar(told(bound), count, most, place * _EACH)
    body.append(f'<path class="grid" d="M0 {_HEIGHT - _BOTTOM:.0f}H{width:.0f}"/>')
    told_of = "; ".join(f"{count} within {told(bound)}" for bound, count in one.buckets)
    size = f'width="{width:.0f}" height="{_HEIGHT:.0f}" viewBox="0 0 {width:.0f} {_HEIGHT:.0f}"'
    return Markup(f'<svg class="histogram" {size} role="img" aria-label="{escape(told_of)}">{"".join(body)}</svg>')


def told(seconds: float) -> str:
    """A number of seconds, for people."""
    return duration(timedelta(seconds=seconds))


def _number(bound: float) -> int:
    return BOUNDS.index(bound) if bound in BOUNDS else len(BOUNDS)


def _bar(bound: str, count: int, most: int, left: float) -> Iterator[str]:
    full = _HEIGHT - _BOTTOM - _TOP
    height = max(_LEAST, full * count / most) if count else 0.0
    top, middle = _HEIGHT - _BOTTOM - height, left + _EACH / 2
    yield f"<g><title>up to {escape(bound)}: {count}</title>"
    if count:
        box = f'x="{left + 3:.1f}" y="{top:.1f}" width="{_EACH - 6:.1f}" height="{height:.1f}"'
        yield f'<rect class="bar forward" {box}/>'
        yield f'<text class="tick" x="{middle:.1f}" y="{top - 4:.1f}" text-anchor="middle">{count}</text>'
    yield f'<text class="tick" x="{middle:.1f}" y="{_HEIGHT - 5:.0f}" text-anchor="middle">{escape(bound)}</text></g>'
