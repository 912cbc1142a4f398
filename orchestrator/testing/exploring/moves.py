"""What becomes of messages that are under way: taken, held up, copied, of no more use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from orchestrator.instance import SagaInstance, StepKey, StepRecord, StepStatus
from orchestrator.testing.exploring.actions import Action, Kind
from orchestrator.testing.exploring.family import label_at
from orchestrator.testing.exploring.world import Answered, Sent, World


def taken(world: World, message: Sent | Answered) -> World:
    """Without one copy of a message that was on its way."""
    if isinstance(message, Sent):
        if message in world.commands:
            return replace(world, commands=without(world.commands, message))
        return replace(world, late_commands=without(world.late_commands, message))
    if message in world.replies:
        return replace(world, replies=without(world.replies, message))
    return replace(world, late_replies=without(world.late_replies, message))


def held_up(world: World, message: Sent | Answered) -> World:
    """With a message that is late from now on; or with a token that nobody redeems for now."""
    if isinstance(message, Answered):
        world, quiet = taken(world, message), world.just_changed - {message.to.label}
        return replace(world, late_replies=tuple(sorted((*world.late_replies, message))), just_changed=quiet)
    quiet = world.just_changed - {message.label}
    if message in world.tokens:
        late = tuple(sorted((*world.late_tokens, message)))
        return replace(world, tokens=without(world.tokens, message), late_tokens=late, just_changed=quiet)
    late = tuple(sorted((*world.late_commands, message)))
    return replace(taken(world, message), late_commands=late, just_changed=quiet)


def copied(world: World, message: Sent | Answered) -> World:
    """With one more copy of a message, to be taken now."""
    if isinstance(message, Sent):
        return replace(world, commands=(*world.commands, message))
    return replace(world, replies=tuple(sorted((*world.replies, message))))


def is_slow(world: World, message: Sent | Answered) -> bool:
    """Whether one like it, of an earlier attempt, is held up: whoever is slow once may be slow again."""
    if isinstance(message, Answered):
        return any((late.to.seat, late.to.step) == (message.to.seat, message.to.step) for late in world.late_replies)
    lates = world.late_tokens if message in world.tokens else world.late_commands
    return any((late.seat, late.step) == (message.seat, message.step) for late in lates)


def left(world: World, action: Action, acked: set[int]) -> dict[str, Any]:
    """What is still on its way to the engine once it has settled these of what it took."""
    if action.kind is Kind.EVENT:
        return {"came": world.came | {action.subject.label}} if acked else {}
    if action.kind is not Kind.HANDLE:
        return {}
    after = world
    for tag in acked:
        after = taken(after, action.subject[tag])
    return {"replies": after.replies, "late_replies": after.late_replies}


def just_changed(before: World, after: World) -> frozenset[str]:
    """The steps of which something has changed, and all of those sagas that have ended."""
    return frozenset(
        label
        for seat, saga in after.sagas.items()
        if before.sagas.get(seat) is not saga
        for label in _changed_of(seat, before.sagas.get(seat), saga)
    )


def _changed_of(seat: str, before: SagaInstance | None, after: SagaInstance) -> list[str]:
    was: Mapping[StepKey, StepRecord] = before.steps if before else {}
    if before and after.status.terminal and not before.status.terminal:
        return [label_at(seat, key) for key in after.steps]
    return [label_at(seat, key) for key, record in after.steps.items() if _phase(was.get(key)) != _phase(record)]


def _phase(record: StepRecord | None) -> object:
    return record and (record.status, record.round, record.attempt, record.send_attempts > 0)


def without_what_matters_no_more(world: World) -> World:
    """Without what is late and answered another way meanwhile: it would be one more copy."""
    if not any(world.under_way[-3:]):
        return world
    settled = {
        (seat, key)
        for seat, saga in world.sagas.items()
        for key, record in saga.steps.items()
        if record.status in (StepStatus.SUCCEEDED, StepStatus.REFUSED) and label_at(seat, key) not in world.just_changed
    }
    if not any((late.seat, late.step) in settled for late in world.late):
        return world
    return replace(
        world,
        late_commands=tuple(sent for sent in world.late_commands if (sent.seat, sent.step) not in settled),
        late_replies=tuple(one for one in world.late_replies if (one.to.seat, one.to.step) not in settled),
        late_tokens=tuple(sent for sent in world.late_tokens if (sent.seat, sent.step) not in settled),
    )


def without(items: tuple[Any, ...], item: Any) -> tuple[Any, ...]:
    """Without the first of its kind."""
    if item not in items:
        return items
    at = items.index(item)
    return (*items[:at], *items[at + 1 :])
