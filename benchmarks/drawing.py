"""A line chart as SVG, both axes by powers of ten: enough to see what grows with what."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 64.0, 150.0, 36.0, 44.0
# Told apart by people who do not see all colours, on light and on dark pages.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")
_GREY: Final = "#808080"
_APART: Final = 14.0

Points = Sequence[tuple[float, float]]


def chart(title: str, across: str, lines: Mapping[str, Points]) -> str:
    """Draw named lines through their points, all above zero; a point tells its figures when it is pointed at."""
    xs, ys = ([point[i] for points in lines.values() for point in points] for i in (0, 1))
    x_of = _scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT)
    y_of = _scale(10 ** math.floor(math.log10(min(ys))), max(ys), _HEIGHT - _BOTTOM, _TOP)
    body = [_text(_LEFT, 20, title, "start", size=14)]
    body += [_text(x_of(x), _HEIGHT - _BOTTOM + 18, told(x)) for x in sorted(set(xs))]
    body.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across))
    for y in _powers(min(ys), max(ys)):
        body += [_rule(y_of(y)), _text(_LEFT - 8, y_of(y) + 4, told(y), "end")]
    names = _apart({name: y_of(points[-1][1]) for name, points in lines.items()})
    for number, (name, points) in enumerate(lines.items()):
        places, colour = [(x_of(x), y_of(y)) for x, y in points], _COLOURS[number % len(_COLOURS)]
        body += _line(name, points, places, colour)
        body.append(_text(places[-1][0] + 10, names[name] + 4, name, "start", colour=colour))
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    shown = "\n".join(body)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" role="img">'
    return f"{opening}\n<title>{escape(title)}</title>\n{shown}\n</svg>\n"


def told(number: float) -> str:
    """A number as an axis has it."""
    return f"{number:,.0f}" if number >= 1 else f"{number:g}"


def _scale(least: float, most: float, begin: float, end: float) -> Callable[[float], float]:
    """From a value to a place, by its logarithm."""
    low = math.log10(least)
    each = (end - begin) / ((math.log10(most) - low) or 1.0)
    return lambda value: begin + (math.log10(value) - low) * each


def _powers(least: float, most: float) -> Iterator[float]:
    for exponent in range(math.floor(math.log10(least)), math.floor(math.log10(most)) + 1):
        yield 10.0**exponent


def _line(name: str, points: Points, places: Points, colour: str) -> Iterator[str]:
    through = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{through}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for (value_x, value_y), (x, y) in zip(points, places, strict=True):
        what = f"{name}: {value_y:,g} at {told(value_x)}"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"><title>{escape(what)}</title></circle>'


def _apart(ends: Mapping[str, float]) -> dict[str, float]:
    """Where the names of lines go: where these end, but not over each other."""
    places: dict[str, float] = {}
    for name, y in sorted(ends.items(), key=lambda end: end[1]):
        places[name] = max(y, *(place + _APART for place in places.values())) if places else y
    return places


def _rule(y: float) -> str:
    return f'<path d="M{_LEFT:.0f} {y:.1f}H{_WIDTH - _RIGHT:.0f}" stroke="{_GREY}" stroke-opacity="0.35"/>'


def _text(x: float, y: float, words: str, anchor: str = "middle", *, size: int = 12, colour: str = _GREY) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} font-size="{size}" fill="{colour}">{escape(words)}</text>'
