"""A saga as a story: what happened, in order, from the rows of its timeline and the notes of its history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from orchestrator.cli.output import clock_time, instant
from orchestrator.differences import differences
from orchestrator.instance import CHILD, ITEMS, LOCAL, RESOLVED, TIMER, Direction, StepStatus
from orchestrator.signals import STARTED
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.text import Text

    from orchestrator.state_story import StateStep
    from orchestrator.status import HistoryRow, SagaRow, TimelineRow

_SAY_IT_THEMSELVES: Final = ("retry", "timeout", "retried")
_ENDED, _CHANGED, _NOTED, _BEGAN, _ENDED_AT_ONCE, _SAGA_ENDED = range(6)
_LOOKS: Final = {
    "sent": ("→", "cyan"),
    "undoing": ("↩", "yellow"),
    "waiting": ("…", "cyan"),
    "answered": ("✓", "green"),
    "undone": ("✓", "yellow"),
    "came": ("✓", "green"),
    "state": ("~", "blue"),
    "refused": ("✗", "red"),
    "unknown": ("?", "red"),
    "expired": ("✗", "red"),
    "cancelled": ("·", "dim"),
    "skipped": ("·", "dim"),
    "resolved": ("✓", "yellow"),
    "abandoned": ("■", "bold red"),
    "retry": ("!", "yellow"),
    "timeout": ("!", "yellow"),
    "turned_back": ("↩", "bold yellow"),
    "blocked": ("■", "bold red"),
    "paused": ("‖", "bold yellow"),
    "resumed": ("→", "bold"),
    "ended": ("■", "bold"),
}


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of a story. `what` is a word programs can rely on."""

    at: datetime
    what: str
    step: str
    text: str
    took: timedelta | None = None
    order: tuple[int, int] = field(default=(0, 0), repr=False)

    def as_json(self) -> dict[str, Any]:
        """Its fields, for programs."""
        return {"at": self.at, "what": self.what, "step": self.step, "text": self.text, "took_seconds": self.took}


def story(row: SagaRow, timeline: Iterable[TimelineRow], history: Iterable[HistoryRow]) -> list[Happening]:
    """Everything that has happened to a saga so far, in order."""
    told = [happening for step in timeline for happening in _of_step(step)]
    told += [_of_note(number, note) for number, note in enumerate(history)]
    if row.ended_at is not None:
        order = (_SAGA_ENDED, 0)
        told.append(Happening(row.ended_at, "ended", "", row.status.value, row.ended_at - row.started_at, order))
    return sorted(told, key=lambda happening: (happening.at, happening.order))


def _of_step(row: TimelineRow) -> Iterator[Happening]:
    name = f"{row.step}[{row.branch}]" if row.branch else row.step
    if row.status is not StepStatus.SKIPPED or row.ended_at != row.started_at:
        what, text = _beginning(row)
        yield Happening(row.started_at, what, name, text, order=(_BEGAN, row.seq))
    if row.ended_at is not None:
        what, text = _end(row)
        at_once = _ENDED_AT_ONCE if row.ended_at == row.started_at else _ENDED
        yield Happening(row.ended_at, what, name, text, row.ended_at - row.started_at, (at_once, row.seq))


def state_changes(steps: Iterable[StateStep]) -> Iterator[Happening]:
    """What became of the state, a line for each value that a step changed."""
    for number, one in enumerate(steps):
        order = (-1 if one.cause == STARTED else _CHANGED, number + 1)
        for text in _changes_of(one):
            yield Happening(one.at, "state", one.label, text, order=order)


def _changes_of(one: StateStep) -> Iterable[str]:
    if one.state is None:
        return (f"{one.cause}: a state of version {one.version}, which is not known here",)
    if one.changes is None:
        return map(str, differences({}, one.state))
    return (f"{one.cause}: {change}" for change in one.changes)


_CAME: Final = {TIMER: "the time has come", ITEMS: "all items are over", CHILD: "the child saga has ended"}


def _beginning(row: TimelineRow) -> tuple[str, str]:
    if not row.participant:
        if row.message == TIMER:
            return "waiting", f"waits until {instant(row.deadline)[:19]}" if row.deadline else "waits"
        if row.message == LOCAL:
            return (
                ("undoing", "to be undone here") if row.direction is Direction.COMPENSATION else ("local", "runs here")
            )
        return "waiting", f"waits for {row.message or 'an event'}"
    if row.direction is Direction.COMPENSATION:
        return "undoing", f"{row.message} to {row.participant}, to undo it"
    return "sent", f"{row.message} to {row.participant}"


def _end(row: TimelineRow) -> tuple[str, str]:
    tries = f", at attempt {row.attempt}" if row.attempt > 1 else ""
    error = row.error_text or row.error_code or ""
    if row.status is StepStatus.SUCCEEDED:
        if row.error_code == RESOLVED:
            return "resolved", f"done by hand: {error}"
        if not row.participant and row.message != LOCAL:
            return "came", _CAME.get(row.message or "", f"{row.message} came")
        undone = row.direction is Direction.COMPENSATION
        return ("undone", f"undone{tries}") if undone else ("answered", f"done{tries}")
    if row.status is StepStatus.REFUSED:
        return "refused", f"refused{tries}: {error}"
    if row.status is StepStatus.UNKNOWN:
        return "unknown", f"no answer{tries}, it may have happened" + (f": {error}" if error else "")
    if row.status is StepStatus.EXPIRED:
        return "expired", error or f"{row.message} did not come in time"
    return row.status.value, f"{row.status.value}: {error}" if error else row.status.value


def _of_note(number: int, note: HistoryRow) -> Happening:
    order = (_NOTED, number)
    if note.kind == "turned_back":
        because = f" because of {note.step}" if note.step else f": {note.text}"
        return Happening(note.at, note.kind, "", f"turning back{because}", order=order)
    text = note.text if note.kind in _SAY_IT_THEMSELVES else f"{note.kind}: {note.text}"
    return Happening(note.at, note.kind, note.step, text, order=order)


class Follower:
    """Tells what is new each time it is shown a saga."""

    def __init__(self) -> None:
        self._told: set[tuple[str, str, tuple[int, int], datetime]] = set()

    def news(self, happenings: Iterable[Happening]) -> list[Happening]:
        """What was not there before, in order."""
        new = [one for one in happenings if _identity(one) not in self._told]
        self._told.update(map(_identity, new))
        return new


def _identity(one: Happening) -> tuple[str, str, tuple[int, int], datetime]:
    return one.what, one.step, one.order, one.at


def line(one: Happening, indent: str = "") -> Text:
    """A happening as a line for people."""
    from rich.text import Text

    mark, style = _LOOKS.get(one.what, ("·", "magenta"))
    if one.what == "ended":
        style = "bold green" if one.text == "completed" else "bold yellow"
    told = Text(indent)
    told.append(clock_time(one.at), "dim").append(f"  {mark} ", style)
    if one.step:
        told.append(f"{one.step:<17} ", "bold" if one.what != "cancelled" else "")
    told.append(one.text, style if one.what not in ("sent", "waiting") else "")
    if one.took is not None:
        told.append(f"  {duration(one.took)}", "dim")
    return told
