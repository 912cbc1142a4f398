"""A saga's steps as a picture: SVG for light and dark pages, drawn without any other program.

Steps run from top to bottom; what runs together stands side by side in a dashed frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from html import escape
from typing import Any, Final
from unicodedata import east_asian_width

from orchestrator.definition import Saga
from orchestrator.graph import Group, Happened, Part, Shape, shapes_of, title_of, with_what_happened

_LINE: Final = 18
_PAD: Final = 14
_GAP: Final = 30
_MARGIN: Final = 24
_NAME_CHAR, _CHAR = 8.6, 7.0
_PILL: Final = 32
_NO_RETURN: Final = "point of no return: from here only forward"
_LEAST_WIDTH: Final = 180.0
_STRIPE: Final = 7

_LIGHT: Final = ("#1c2330", "#586274", "#ffffff", "#f4f6fa", "#8b95a7", "#a3480f", "#6b3fb8", "#1b66b3")
_DARK: Final = ("#e6eaf2", "#a5b0c2", "#14181f", "#202733", "#667085", "#f0a36c", "#b79af0", "#74b4f5")
_HAPPENED_LIGHT: Final = {"forward": "#0072b2", "undo": "#e69f00", "failed": "#d55e00", "idle": "#9aa3b2"}
_HAPPENED_DARK: Final = {"forward": "#4aa8e0", "undo": "#e6a93a", "failed": "#ee7d3b", "idle": "#6c778b"}
"""Of a palette that colour-blind people tell apart; each has a sign in its line as well."""
_FORMS: Final = """
svg { font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.pivot { stroke-width: 3; }
.wait { stroke-dasharray: 6 3; }
.frame { fill: none; stroke-dasharray: 4 4; }
.arrow { fill: none; stroke-width: 1.5; marker-end: url(#tip); }
.rule { stroke-dasharray: 2 3; }
.no-return { stroke-dasharray: 8 5; }
.name { font-size: 14px; font-weight: 600; }
.text, .undo, .note { font-size: 12px; }
""".strip()


def _colours(ink: str, soft: str, page: str, card: str, line: str, undo: str, pivot: str, wait: str) -> str:
    """The rules for one palette; plain values, since few programs that show SVG know CSS variables."""
    fills = {".page": page, ".card, .pill": card, ".tip, .text": soft, ".name": ink, ".undo": undo, ".note": pivot}
    strokes = {".card, .pill, .frame, .rule": line, ".arrow": soft, ".pivot, .retriable, .no-return": pivot}
    rules = [f"{which} {{ fill: {colour}; }}" for which, colour in fills.items()]
    rules += [f"{which} {{ stroke: {colour}; }}" for which, colour in (strokes | {".wait": wait}).items()]
    return "\n".join(rules)


def _of_happened(colours: Mapping[str, str]) -> str:
    rules = [f".happened.{kind} {{ fill: {colour}; }}" for kind, colour in colours.items()]
    open_one = f".happened.open {{ fill: none; stroke: {colours['forward']}; stroke-dasharray: 4 3; }}"
    return "\n".join([*rules, f".happened.unknown {{ fill: {colours['failed']}; }}", open_one])


def _palette(colours: tuple[str, ...], happened: Mapping[str, str]) -> str:
    return f"{_colours(*colours)}\n{_of_happened(happened)}"


_STYLE: Final = "\n".join(
    [
        _FORMS,
        _palette(_LIGHT, _HAPPENED_LIGHT),
        *("@media (prefers-color-scheme: dark) {", _palette(_DARK, _HAPPENED_DARK), "}"),
    ],
)


def svg(saga: type[Saga[Any]], happened: Mapping[str, Happened] | None = None) -> str:
    """Draw a saga's steps, as defined; or with what became of each in one saga, by the steps' names."""
    root, title = shapes_of(saga), title_of(saga)
    if happened is not None:
        root = with_what_happened(root, happened)
    inner_width = max(_size(root)[0], _wide(title, _NAME_CHAR) + 2 * _PAD, _wide(_NO_RETURN, _CHAR))
    width, middle = inner_width + 2 * _MARGIN, _MARGIN + inner_width / 2
    body = [*_pill(title, middle, _MARGIN)]
    y = float(_MARGIN + _PILL)
    for part in root.parts:
        body += [_arrow(middle, y, y + _GAP), *_drawn(part, middle, y + _GAP)]
        y += _GAP + _size(part)[1]
        if isinstance(part, Shape) and part.kind == "pivot":
            body += _no_return(middle, width, y)
            y += _LINE + _PAD
    body += [_arrow(middle, y, y + _GAP), *_pill("completed", middle, y + _GAP)]
    return _document(title, _described(root), width, y + _GAP + _PILL + _MARGIN, body)


def _document(title: str, description: str, width: float, height: float, body: list[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    marker = 'id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title what">',
            f'<title id="title">{escape(title)}</title>',
            f'<desc id="what">{escape(description)}</desc>',
            f"<style>\n{_STYLE}\n</style>",
            f'<defs><marker {marker}><path class="tip" d="M0 0 L8 4 L0 8 Z"/></marker></defs>',
            f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
            *body,
            "</svg>\n",
        ]
    )


def _described(part: Part) -> str:
    """The picture in words, for those who do not see it."""
    if isinstance(part, Shape):
        undone = f", undone by {part.undone_by}" if part.undone_by else ""
        return f"{part.name} ({', '.join(part.lines)}{undone})"
    if part.title:
        return f"{part.title} [{_described(replace(part, title=''))}]"
    words = (" together with " if part.together else ", then ").join(_described(inner) for inner in part.parts)
    return f"[{words}]" if part.together else words


# -- sizes


def _wide(text: str, each: float) -> float:
    """How wide a text is about; nothing here can measure it."""
    return each * sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


def _size(part: Part) -> tuple[float, float]:
    """Width and height of a part."""
    if isinstance(part, Shape):
        texts = (*part.lines, *_undo_lines(part))
        widths = [_wide(part.name, _NAME_CHAR), *(_wide(text, _CHAR) for text in texts)]
        rule = _PAD / 2 if part.undone_by else 0
        return max(_LEAST_WIDTH, max(widths) + 2 * _PAD), 2 * _PAD + _LINE * (1 + len(texts)) + rule
    if part.title:
        width, height = _size(replace(part, title=""))
        return max(width, _wide(part.title, _CHAR)) + 2 * _PAD, height + 2 * _PAD + _LINE
    sizes = [_size(inner) for inner in part.parts]
    if part.together:
        width = sum(size[0] for size in sizes) + _PAD * (len(sizes) + 1)
        return width, max(size[1] for size in sizes) + 2 * _PAD + _LINE
    return max(size[0] for size in sizes), sum(size[1] for size in sizes) + _GAP * (len(sizes) - 1)


def _undo_lines(shape: Shape) -> tuple[str, ...]:
    return (f"↩ undone by {shape.undone_by}",) if shape.undone_by else ()


# -- shapes; `middle` is where the middle of a part is, `top` its upper border


def _drawn(part: Part, middle: float, top: float) -> Iterator[str]:
    if isinstance(part, Shape):
        yield from _card(part, middle, top)
    elif part.together or part.title:
        yield from _frame(part, middle, top)
    else:
        yield from _stack(part, middle, top)


def _stack(group: Group, middle: float, top: float) -> Iterator[str]:
    for number, inner in enumerate(group.parts):
        if number:
            yield _arrow(middle, top, top + _GAP)
            top += _GAP
        yield from _drawn(inner, middle, top)
        top += _size(inner)[1]


def _frame(group: Group, middle: float, top: float) -> Iterator[str]:
    width, height = _size(group)
    left = middle - width / 2
    yield f'<rect class="frame" x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="10"/>'
    yield _text(group.title or "together", "text", left + _PAD, top + _LINE)
    if group.title:
        yield from _drawn(replace(group, title=""), middle, top + _PAD + _LINE)
        return
    left += _PAD
    for inner in group.parts:
        wide = _size(inner)[0]
        yield from _drawn(inner, left + wide / 2, top + _PAD + _LINE)
        left += wide + _PAD


def _card(shape: Shape, middle: float, top: float) -> Iterator[str]:
    width, height = _size(shape)
    left = middle - width / 2
    box = f'x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" rx="6"'
    yield f"<g><title>{escape(_described(shape))}</title>"
    yield f'<rect class="card {shape.kind}" {box}/>'
    if shape.happened:
        stripe = f'x="{left:.1f}" y="{top + 6:.1f}" width="{_STRIPE}" height="{height - 12:.1f}"'
        yield f'<rect class="happened {shape.happened}" {stripe}/>'
    baseline = top + _PAD + 13
    yield _text(shape.name, "name", left + _PAD, baseline)
    for line in shape.lines:
        baseline += _LINE
        yield _text(line, "text", left + _PAD, baseline)
    for line in _undo_lines(shape):
        rule = baseline + _PAD / 2 + 1
        yield f'<line class="rule" x1="{left:.1f}" y1="{rule:.1f}" x2="{left + width:.1f}" y2="{rule:.1f}"/>'
        baseline += _LINE + _PAD / 2
        yield _text(line, "undo", left + _PAD, baseline)
    yield "</g>"


def _pill(text: str, middle: float, top: float) -> Iterator[str]:
    width = _wide(text, _NAME_CHAR) + 2 * _PAD
    box = f'x="{middle - width / 2:.1f}" y="{top:.1f}" width="{width:.1f}" height="{_PILL}" rx="{_PILL / 2}"'
    yield f'<rect class="pill" {box}/>'
    yield _text(text, "name", middle, top + 21, anchor="middle")


def _no_return(middle: float, width: float, y: float) -> Iterator[str]:
    line = y + _PAD
    yield f'<line class="arrow" style="marker-end:none" x1="{middle:.1f}" y1="{y:.1f}" x2="{middle:.1f}" y2="{line}"/>'
    yield f'<line class="no-return" x1="{_MARGIN / 2}" y1="{line}" x2="{width - _MARGIN / 2:.1f}" y2="{line}"/>'
    yield _text(_NO_RETURN, "note", middle, line + _PAD, anchor="middle")


def _arrow(x: float, top: float, bottom: float) -> str:
    return f'<path class="arrow" d="M{x:.1f} {top:.1f} V{bottom - 1:.1f}"/>'


def _text(text: str, look: str, x: float, y: float, *, anchor: str = "start") -> str:
    return f'<text class="{look}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
