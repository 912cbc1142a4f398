"""A saga's steps as a diagram: Mermaid or DOT text from the plan, and the statuses from their table.

Pure. `orchestrator.graph_svg` draws the same shapes as a picture.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

from orchestrator.definition import Saga
from orchestrator.draft import TRANSITIONS
from orchestrator.instance import SagaStatus
from orchestrator.plan import Branch, ChildLeaf, CommandLeaf, EventLeaf, ItemsLeaf, LeafPlan, LocalLeaf

_DOT_LOOKS: Final = {
    "step": "style=rounded",
    "pivot": "style=bold penwidth=3",
    "retriable": 'style="rounded,bold"',
    "wait": "shape=hexagon",
}
_MERMAID_ENDS: Final = {
    "step": ("[", "]"),
    "pivot": ("[[", "]]"),
    "retriable": ("(", ")"),
    "wait": ("{{", "}}"),
}
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


@dataclass(frozen=True, slots=True)
class Shape:
    """A step: its name, what it does in a few lines, and what undoes it (empty: nothing does)."""

    id: str
    name: str
    kind: str
    """`step`, `pivot`, `retriable` or `wait`."""
    lines: tuple[str, ...]
    undone_by: str = ""
    happened: str = ""
    """What became of it in one saga: `forward`, `undo`, `failed`, `unknown`, `open` or `idle`; empty: nothing yet."""


class Happened(NamedTuple):
    """What became of a step in one saga: the kind, as `Shape` has it, and a few words."""

    kind: str
    told: str


@dataclass(frozen=True, slots=True)
class Group:
    """Shapes one after the other, or together."""

    id: str
    parts: tuple[Part, ...]
    together: bool
    title: str = ""
    """What a `ForEach` says; other groups have none."""

    @property
    def label(self) -> str:
        """What the group is, in a few words."""
        return self.title or ("together" if self.together else "in sequence")


Part: TypeAlias = Shape | Group


def shapes_of(saga: type[Saga[Any]]) -> Group:
    """What there is to draw of a saga."""
    numbers = iter(range(1, 1 << 20))
    root = _part(saga.plan.root, numbers)
    assert isinstance(root, Group)
    return root


def _part(part: LeafPlan | Branch, numbers: Iterator[int]) -> Part:
    if isinstance(part, Branch):
        group = f"g{next(numbers)}"
        return Group(group, tuple(_part(inner, numbers) for inner in part.parts), part.together)
    if isinstance(part, ItemsLeaf):
        title = f"{part.name}: for each item, {part.step.concurrency} at once"
        return Group(f"g{next(numbers)}", tuple(_part(one, numbers) for one in part.inner.parts), False, title)
    if isinstance(part, (CommandLeaf, LocalLeaf)):
        return _doing(part)
    return _wait(part)


def _doing(leaf: CommandLeaf | LocalLeaf) -> Shape:
    kind = "pivot" if leaf.step.pivot else "retriable" if leaf.step.retriable else "step"
    said = {"pivot": ("pivot",), "retriable": ("tried until it succeeds",)}.get(kind, ())
    if isinstance(leaf, LocalLeaf):
        does, undone_by = "runs here, in the saga's transaction", "a function of its own" if leaf.undoable else ""
    else:
        sends = " or ".join(command.wire_name for command in leaf.commands)
        does = f"{sends} → {leaf.step.participant}"
        undone_by = " or ".join(command.wire_name for command in leaf.compensations)
    return Shape(f"s{leaf.position}", leaf.name, kind, (does, *said), undone_by)


def _wait(leaf: LeafPlan) -> Shape:
    if isinstance(leaf, ChildLeaf):
        undone_by = "having it go back" if leaf.undoable else ""
        return Shape(f"s{leaf.position}", leaf.name, "wait", (f"saga {leaf.step.saga.name}",), undone_by)
    if not isinstance(leaf, EventLeaf):
        return Shape(f"s{leaf.position}", leaf.name, "wait", ("waits for a time",))
    timeout, then = leaf.step.timeout, leaf.step.on_timeout
    if leaf.after_pivot and then == "compensate":
        then = "block"
    bound = "until the saga's deadline" if timeout is None else f"at most {spoken(timeout)}, then {then}"
    return Shape(f"s{leaf.position}", leaf.name, "wait", (f"waits for {leaf.event.wire_name}", bound))


def with_what_happened(group: Group, happened: Mapping[str, Happened]) -> Group:
    """The same, each step with what became of it in its first line; `happened` is by the steps' names."""
    return replace(group, parts=tuple(_happened_in(part, happened) for part in group.parts))


def _happened_in(part: Part, happened: Mapping[str, Happened]) -> Part:
    if isinstance(part, Group):
        return with_what_happened(part, happened)
    kind, told = happened.get(part.name, Happened("", "not begun"))
    return replace(part, lines=(told, *part.lines), happened=kind)


def spoken(duration: timedelta) -> str:
    """A duration in its units, exactly: `30 s`, `1 h 30 min`, `0.5 s`."""
    left, words = duration, list[str]()
    for unit, seconds in _UNITS[:-1]:
        count, left = divmod(left, timedelta(seconds=seconds))
        words += [f"{count} {unit}"] if count else []
    if left or not words:
        words.append(f"{left.total_seconds():g} s")
    return " ".join(words)


def title_of(saga: type[Saga[Any]]) -> str:
    """What a diagram of this saga is called."""
    return f"{saga.name} v{saga.version}"


# -- Mermaid


def mermaid(saga: type[Saga[Any]]) -> str:
    """The steps as a Mermaid flowchart."""
    root = shapes_of(saga)
    chain = ["start", *(part.id for part in root.parts), "done"]
    lines = ["flowchart TB", f'    start(["{_escaped(title_of(saga))}"])', '    done(["completed"])']
    for part in root.parts:
        lines += _mermaid_part(part, "    ")
    lines += [f"    {one} --> {other}" for one, other in pairwise(chain)]
    return "\n".join(lines) + "\n"


def _mermaid_part(part: Part, indent: str) -> Iterator[str]:
    if isinstance(part, Shape):
        opened, closed = _MERMAID_ENDS[part.kind]
        text = "<br/>".join(_escaped(line) for line in (part.name, *part.lines))
        yield f'{indent}{part.id}{opened}"{text}"{closed}'
        if part.undone_by:
            yield f'{indent}{part.id} -. undone by .-> u{part.id}["{_escaped(part.undone_by)}"]'
        return
    yield f'{indent}subgraph {part.id}["{_escaped(part.label)}"]'
    for inner in part.parts:
        yield from _mermaid_part(inner, indent + "    ")
    ids = [] if part.together else [inner.id for inner in part.parts]
    yield from (f"{indent}    {one} --> {other}" for one, other in pairwise(ids))
    yield f"{indent}end"


def _escaped(text: str) -> str:
    """Text between quotes of a Mermaid label."""
    return html.escape(text).replace("&quot;", "#quot;").replace("&#x27;", "'").replace("\n", " ")


def statuses() -> str:
    """The statuses of a saga and the ways between them, as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {SagaStatus.RUNNING.value}"]
    lines += [
        f"    {one.value} --> {other.value}" for one in SagaStatus for other in SagaStatus if _follows(one, other)
    ]
    reached = {status for following in TRANSITIONS.values() for status in following}
    lines += [f"    {status.value} --> [*]" for status in SagaStatus if status.terminal and status in reached]
    return "\n".join(lines) + "\n"


def _follows(one: SagaStatus, other: SagaStatus) -> bool:
    return other in TRANSITIONS[one]


# -- DOT


def dot(saga: type[Saga[Any]]) -> str:
    """The steps as a DOT digraph, for Graphviz."""
    title = _quoted(title_of(saga))
    lines = [f"digraph {title} {{", "    compound=true", "    node [shape=box fontname=Helvetica]"]
    lines += [f"    start [shape=oval label={title}]", '    done [shape=oval label="completed"]']
    root = shapes_of(saga)
    for part in root.parts:
        lines += _dot_part(part, "    ")
    chain: list[Part] = [Shape("start", "", "step", ()), *root.parts, Shape("done", "", "step", ())]
    lines += [f"    {edge}" for edge in _dot_edges(chain)]
    return "\n".join([*lines, "}"]) + "\n"


def _dot_part(part: Part, indent: str) -> Iterator[str]:
    if isinstance(part, Shape):
        yield f"{indent}{part.id} [{_DOT_LOOKS[part.kind]} label={_quoted(part.name, *part.lines)}]"
        if part.undone_by:
            yield f"{indent}u{part.id} [style=dashed label={_quoted(part.undone_by)}]"
            yield f'{indent}{part.id} -> u{part.id} [style=dashed label="undone by"]'
        return
    yield f"{indent}subgraph cluster_{part.id} {{"
    yield f"{indent}    label={_quoted(part.label)} style=dashed"
    for inner in part.parts:
        yield from _dot_part(inner, indent + "    ")
    if not part.together:
        yield from (f"{indent}    {edge}" for edge in _dot_edges(list(part.parts)))
    yield f"{indent}}}"


def _dot_edges(chain: list[Part]) -> Iterator[str]:
    """One after the other; an edge of a group runs between shapes inside it and is cut at its border."""
    for one, other in pairwise(chain):
        ends = [f"ltail=cluster_{one.id}"] if isinstance(one, Group) else []
        ends += [f"lhead=cluster_{other.id}"] if isinstance(other, Group) else []
        yield f"{_shape_in(one, -1).id} -> {_shape_in(other, 0).id}" + (f" [{' '.join(ends)}]" if ends else "")


def _shape_in(part: Part, index: int) -> Shape:
    return part if isinstance(part, Shape) else _shape_in(part.parts[index], index)


def _quoted(*lines: str) -> str:
    """A DOT string of several lines."""
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
