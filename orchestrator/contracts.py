"""What sagas send and wait for, as the contracts between services have it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Final, get_args, get_type_hints

from messaging.contracts import Party, Received, Sent
from messaging.envelope import to_queue, to_subscribers
from messaging.messages import Event
from messaging.transport import Binding
from orchestrator.definition import Saga
from orchestrator.plan import CommandLeaf, EventLeaf, EventStart
from orchestrator.registry import SagaRegistry
from orchestrator.service import Queues
from orchestrator.steps import Leaf

_NAME: Final = "orchestrator"


def party_of_sagas(registry: SagaRegistry, *, installation: str = "main") -> Party:
    """Tell what the sagas send and wait for.

    Which events they publish is read from what their `events`, `on_completed` and `on_compensated` say they
    return: `-> Iterable[OrderPaid]`.
    """
    receives = {heard.event: Received(heard.event, Binding(heard.event.wire_name)) for heard in _heard(registry)}
    sends = dict.fromkeys(sent for saga in registry for sent in (*_commands(saga), *_events(saga)))
    return Party(_NAME, Queues(installation).events, tuple(receives.values()), tuple(sends))


def _heard(registry: SagaRegistry) -> Iterator[EventLeaf | EventStart]:
    for saga in registry:
        yield from saga.plan.waits()
        yield from saga.plan.starts


def _commands(saga: type[Saga[Any]]) -> Iterator[Sent]:
    for leaf in saga.plan.leaves.values():
        if isinstance(leaf, CommandLeaf):
            for command in (*leaf.commands, *leaf.compensations):
                yield Sent(command, to_queue(leaf.step.participant))


def _events(saga: type[Saga[Any]]) -> Iterator[Sent]:
    steps = (leaf.step for leaf in saga.plan.leaves.values())
    of_steps = (type(step).events for step in steps if isinstance(step, Leaf))
    hooks: tuple[Any, ...] = (saga.on_completed, saga.on_compensated, *of_steps)
    for hook in hooks:
        for event in _returned_events(hook):
            yield Sent(event, to_subscribers(event.wire_name))


def _returned_events(hook: Any) -> Iterator[type[Event]]:
    """The event classes that a hook's annotation names; none where it names none that can be found."""
    try:
        hint = get_type_hints(inspect.unwrap(hook)).get("return")
    except (NameError, TypeError):
        return
    for argument in get_args(hint):
        for part in (argument, *get_args(argument)):
            if isinstance(part, type) and issubclass(part, Event) and part is not Event:
                yield part
