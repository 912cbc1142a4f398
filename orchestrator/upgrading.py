"""From one version of a saga to a later one: whether its rows fit that definition, and the state lifted to it. Pure.

Rows keep the names that were written first, since participants know commands by them. So a step that has begun
must be in the new version by its name; what has not begun is the new version's business.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from messaging.codec import encode_body
from messaging.printable import error_text
from orchestrator.definition import Saga
from orchestrator.draft import Draft
from orchestrator.instance import (
    CHILD,
    ITEMS,
    LOCAL,
    TIMER,
    BlockedReason,
    Direction,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.plan import (
    Branch,
    ChildLeaf,
    CommandLeaf,
    DelayLeaf,
    EventLeaf,
    ItemsLeaf,
    LeafPlan,
    LocalLeaf,
    Plan,
)
from orchestrator.registry import pin_of
from orchestrator.roster import Roster
from orchestrator.searchable import all_values
from orchestrator.signals import UPGRADED, Decision

_KINDS: Final[dict[str, type[LeafPlan]]] = {TIMER: DelayLeaf, LOCAL: LocalLeaf, ITEMS: ItemsLeaf, CHILD: ChildLeaf}
_WORDS: Final[dict[type[LeafPlan], str]] = {
    CommandLeaf: "a command step",
    EventLeaf: "a wait for an event",
    DelayLeaf: "a delay",
    LocalLeaf: "a local step",
    ItemsLeaf: "a ForEach",
    ChildLeaf: "a step with a child saga",
}


@dataclass(frozen=True, slots=True)
class Upgrade:
    """Whether a saga can be upgraded, and how it stands then."""

    decision: Decision | None
    """None: it cannot be."""
    refused: str = ""
    passed_over: tuple[str, ...] = ()
    """Steps of the new version which it will not run, for it is beyond their place."""


def upgraded(
    saga: type[Saga[Any]], instance: SagaInstance, *, old: Plan | None, now: datetime, told: str = ""
) -> Upgrade:
    """Have a saga belong to this version of its definition, or say why it cannot.

    Args:
        saga: the new version.
        instance: with its records.
        old: the steps it has now, where they are known: whether their pivot has passed is looked at then.
        now: the instant.
        told: who asked for it, and why.
    """
    try:
        refused = next(_problems(saga, instance, old), "")
        state = "" if refused else _state_of(saga, instance)
    except _Unfit as error:
        refused, state = str(error), ""
    if refused:
        return Upgrade(None, refused)
    draft = Draft(saga(), instance, now)
    draft.know(state, StepKey(""), UPGRADED)
    draft.wake_now = True
    if draft.blocked and draft.blocked[0] is BlockedReason.NEEDS_VERSION:
        draft.unblock()
    draft.note("upgraded", f"from v{instance.pin.version} to v{saga.version} {told}".rstrip())
    decision = draft.decision()
    return Upgrade(
        replace(
            decision, instance=replace(decision.instance, pin=pin_of(saga)), search=_search(saga, instance, state, old)
        ),
        passed_over=tuple(_passed_over(saga.plan.root, instance)),
    )


def _search(
    saga: type[Saga[Any]], instance: SagaInstance, state: str, old: Plan | None
) -> tuple[tuple[str, str | None], ...]:
    """What it can be found by, all of it: the new version may mark other fields."""
    if old is not None and not old.searchable and not saga.plan.searchable:
        return ()
    return all_values(saga.plan.searchable, instance.state, state)


class _Unfit(Exception):
    """The state cannot be lifted."""


def _state_of(saga: type[Saga[Any]], instance: SagaInstance) -> str:
    try:
        body = json.loads(instance.state)
        for version in range(instance.pin.version, saga.version):
            body = saga.upcast(body, version)
        return encode_body(saga.state_type.model_validate_json(json.dumps(body))).decode()
    except ValidationError as error:  # its own text would hold what the state holds
        wrong = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in error.errors())
        text = f"its state is not a {saga.state_type.__name__} ({wrong}). Give fields defaults, or define upcast"
        raise _Unfit(text) from error
    except Exception as error:
        raised = f"{saga.__name__}.upcast raised {error_text(error)}"
        raise _Unfit(f"its state cannot be lifted: {raised}") from error


# -- whether the rows fit


def _problems(saga: type[Saga[Any]], instance: SagaInstance, old: Plan | None) -> Iterator[str]:
    pin, plan = instance.pin, saga.plan
    held = instance.status is SagaStatus.COMPLETED and instance.parent is not None
    if instance.pin == pin_of(saga):
        yield "it has this version already"
    if pin.name != saga.name:
        yield f"it is a {pin.name}, not a {saga.name}"
    if pin.version > saga.version:
        yield f"it has v{pin.version}, and nothing is taken back to an earlier version"
    if instance.status.terminal and not held:
        yield f"it is {instance.status.value}"
    for record in sorted(instance.steps.values(), key=lambda record: record.seq):
        yield from _misfits(record, plan.leaves.get(record.key.step), saga.version)
    for label, later in _left_behind(plan.root, instance):
        yield f"{label} is awaited, and in v{saga.version} it stands before {later}, which has begun"
    yield from _of_the_pivots(plan, instance, old)


def _misfits(record: StepRecord, leaf: LeafPlan | None, version: int) -> Iterator[str]:
    step, it = record.key.step, f"{record.key.label} has begun ({record.status.value})"
    kind = _kind_of(record)
    if leaf is None:
        yield f"{it}, and v{version} has no step of this name: say name = {step!r} on the class that does it there"
        return
    if kind is not None and not isinstance(leaf, kind):
        yield f"{it} as {_WORDS[kind]}, and is {_WORDS[type(leaf)]} in v{version}"
        return
    if bool(record.key.branch) != bool(leaf.group):
        yield f"{it}, and in v{version} it stands {'inside' if leaf.group else 'outside'} of a ForEach"
    if isinstance(leaf, ItemsLeaf) and record.memo and sorted(leaf.steps) != sorted(Roster.of(record).steps):
        yield f"{it} with the steps {', '.join(Roster.of(record).steps)}, and its items have others in v{version}"
    if record.status.open:
        yield from _misfits_in_flight(record, leaf, version, it)


def _misfits_in_flight(record: StepRecord, leaf: LeafPlan, version: int, it: str) -> Iterator[str]:
    undo = record.key.direction is Direction.COMPENSATION
    known = _wire_names(leaf, undo=undo)
    if known is not None and record.wire_name not in known:
        what = "is awaited" if record.status is StepStatus.WAITING else "is out"
        yield f"{it}: {record.wire_name} {what}, which the step has not in v{version}"
    elif undo and not isinstance(leaf, (EventLeaf, DelayLeaf)) and not leaf.undoable:
        yield f"{it} to be undone, and v{version} has nothing to undo it with"


def _wire_names(leaf: LeafPlan, *, undo: bool) -> set[str] | None:
    """What an open row of the step may wait for; None where that is the same for all."""
    if isinstance(leaf, CommandLeaf):
        return {command.wire_name for command in (leaf.compensations if undo else leaf.commands)}
    return {leaf.event.wire_name} if isinstance(leaf, EventLeaf) else None


def _kind_of(record: StepRecord) -> type[LeafPlan] | None:
    """Which kind of step wrote a row; None for one that a step of any kind may have written."""
    if record.command_id is not None:
        return CommandLeaf
    return _KINDS.get(record.wire_name, EventLeaf) if record.wire_name else None


def _of_the_pivots(plan: Plan, instance: SagaInstance, old: Plan | None) -> Iterator[str]:
    passed, passed_before = _passed(plan, instance), old is not None and _passed(old, instance)
    if passed_before and not passed:
        yield f"its pivot {old.pivot if old else ''} may have happened, and the new version could still turn back"
    backwards = SagaStatus.COMPENSATING in (instance.status, instance.blocked_from)
    if backwards and passed:
        yield f"it is turning back, and in the new version it has passed the pivot {plan.pivot}"


def _passed(plan: Plan, instance: SagaInstance) -> bool:
    record = instance.steps.get(StepKey(plan.pivot)) if plan.pivot else None
    return record is not None and record.status is not StepStatus.REFUSED


# -- what it is beyond


def _left_behind(part: LeafPlan | Branch, instance: SagaInstance, branch: str = "") -> Iterator[tuple[str, str]]:
    """What is awaited in a sequence before a step that has begun: the sequence would go on without it."""
    if isinstance(part, ItemsLeaf):
        for item in sorted({key.branch for key in instance.steps if key.branch and key.step in part.steps}):
            yield from _left_behind(part.inner, instance, item)
    if not isinstance(part, Branch):
        return
    begun = [inner for inner in part.parts if _has_begun(inner, instance, branch)]
    for inner in begun:
        if not part.together and inner is not begun[-1]:
            keys = (StepKey(name, branch=branch) for name in _names(inner))
            yield from ((key.label, next(_names(begun[-1]))) for key in keys if _is_awaited(instance, key))
        yield from _left_behind(inner, instance, branch)


def _is_awaited(instance: SagaInstance, key: StepKey) -> bool:
    record = instance.steps.get(key)
    return record is not None and (record.status.open or key.label == instance.blocked_step)


def _passed_over(part: LeafPlan | Branch, instance: SagaInstance) -> Iterator[str]:
    """The steps before the last one of a sequence that has begun, and have not begun themselves."""
    if not isinstance(part, Branch):
        return
    begun = [i for i, inner in enumerate(part.parts) if _has_begun(inner, instance)]
    for i, inner in enumerate(part.parts):
        if not part.together and begun and i < begun[-1] and i not in begun:
            yield from _names(inner)
        elif i in begun:
            yield from _passed_over(inner, instance)


def _has_begun(part: LeafPlan | Branch, instance: SagaInstance, branch: str = "") -> bool:
    return any(StepKey(name, branch=branch) in instance.steps for name in _names(part))


def _names(part: LeafPlan | Branch) -> Iterator[str]:
    return (leaf.name for leaf in part.leaves()) if isinstance(part, Branch) else iter((part.name,))
