"""Who gets which resources: all that a step names or none of it, in the order in which steps asked. Pure.

What one saga holds, its whole tree holds. Who waits for whom is a graph of trees; where it has a circle nobody
would ever go on, so the last to have begun waiting in it is denied.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from uuid import UUID

LOCKED: Final = "locked"
LOCK_DEADLOCK: Final = "lock-deadlock"
"""The `error_code` of a step that was denied: it would not wait, or nobody would have gone on."""


@dataclass(frozen=True, slots=True)
class LockRow:
    """A resource that a step holds or asks for. Ids rise in order of asking."""

    id: UUID
    resource: str
    root: UUID
    """The first ancestor of the saga: the tree that holds it."""
    saga_id: UUID
    step: str
    """The label of the step's key."""
    waits: bool
    held: bool


@dataclass(slots=True)
class Request:
    """All that one step asks for."""

    root: UUID
    saga_id: UUID
    step: str
    waits: bool
    rows: list[LockRow] = field(default_factory=list[LockRow])

    @property
    def resources(self) -> set[str]:
        """What it needs, all of it."""
        return {row.resource for row in self.rows}

    @property
    def ids(self) -> list[UUID]:
        """Its rows."""
        return [row.id for row in self.rows]


@dataclass(frozen=True, slots=True)
class Settled:
    """What follows: who is granted what was asked for, and who is denied it, with the code of the failure."""

    granted: Sequence[Request]
    denied: Sequence[tuple[Request, str]]


def settle(rows: Iterable[LockRow]) -> Settled:
    """Settle who gets what, given all rows of each resource that somebody asks for."""
    ordered = sorted(rows, key=lambda row: row.id)
    held = {row.resource: row.root for row in ordered if row.held}
    asked = _requests(row for row in ordered if not row.held)
    granted: list[Request] = []
    denied: list[tuple[Request, str]] = []
    waiting: list[tuple[Request, set[UUID]]] = []
    while True:
        _in_order(asked, held, granted, denied, waiting)
        last = next((request for request, _ in reversed(waiting) if _in_a_circle(request, waiting)), None)
        if last is None:
            return Settled(granted, denied)
        denied.append((last, LOCK_DEADLOCK))
        asked, waiting = [request for request, _ in waiting if request is not last], []


def _requests(rows: Iterable[LockRow]) -> list[Request]:
    requests: dict[tuple[UUID, str], Request] = {}
    for row in rows:
        request = Request(row.root, row.saga_id, row.step, row.waits)
        requests.setdefault((row.saga_id, row.step), request).rows.append(row)
    return list(requests.values())


def _in_order(
    asked: Sequence[Request],
    held: dict[str, UUID],
    granted: list[Request],
    denied: list[tuple[Request, str]],
    waiting: list[tuple[Request, set[UUID]]],
) -> None:
    """Go through what is asked for, the earliest first; what waits keeps its place before what comes later."""
    for request in asked:
        blockers = _blockers(request, held, waiting)
        if not blockers:
            granted.append(request)
            held.update(dict.fromkeys(request.resources, request.root))
        elif request.waits:
            waiting.append((request, blockers))
        else:
            denied.append((request, LOCKED))


def _blockers(request: Request, held: dict[str, UUID], waiting: Sequence[tuple[Request, set[UUID]]]) -> set[UUID]:
    """The other trees that hold one of its resources, or are before it in the line for one that is not its own."""
    needed = {resource for resource in request.resources if held.get(resource) != request.root}
    holders = {held[resource] for resource in needed if resource in held}
    earlier = {other.root for other, _ in waiting if other.root != request.root and needed & other.resources}
    return holders | earlier


def _in_a_circle(request: Request, waiting: Sequence[tuple[Request, set[UUID]]]) -> bool:
    """Whether those it waits for wait for it, directly or through others."""
    waits_for: dict[UUID, set[UUID]] = {}
    for other, blockers in waiting:
        waits_for.setdefault(other.root, set()).update(blockers)
    ahead = list(next(blockers for other, blockers in waiting if other is request))
    seen: set[UUID] = set()
    while ahead:
        root = ahead.pop()
        if root == request.root:
            return True
        if root not in seen:
            seen.add(root)
            ahead.extend(waits_for.get(root, ()))
    return False
