"""Which definitions this process knows, and what they wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from messaging.codec import MessageRegistry
from messaging.messages import Event
from orchestrator.definition import Saga
from orchestrator.errors import SagaDefinitionError, UnknownDefinition
from orchestrator.instance import Pin
from orchestrator.plan import CommandLeaf, EventLeaf, EventStart


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """An event type with every wait of every definition that may take it, and the sagas that it starts."""

    event: type[Event]
    waits: tuple[EventLeaf, ...]
    starts: tuple[tuple[type[Saga[Any]], EventStart], ...] = ()
    """Of each saga the latest version known here."""


class SagaRegistry:
    """Definitions by name and version, checked against each other at start.

    Raises:
        SagaDefinitionError: two definitions have one name and version.
    """

    def __init__(self, sagas: Iterable[type[Saga[Any]]]) -> None:
        self._by_pin: dict[Pin, Saga[Any]] = {}
        self._by_name: dict[tuple[str, int], type[Saga[Any]]] = {}
        self.messages = MessageRegistry()
        for saga in sagas:
            self._register(saga)
        self.events = self._known_events()
        self.starting = tuple(name for name, known in self.events.items() if known.starts)
        """The wire names of events that start sagas."""
        self.locking = any(saga.plan.locking for saga in self._by_pin.values())
        """Whether any of them names resources."""

    def _register(self, saga: type[Saga[Any]]) -> None:
        if not hasattr(saga, "plan"):
            raise SagaDefinitionError(f"saga {saga.__name__}", "has no steps. Set steps = (...) on the class")
        other = self._by_name.setdefault((saga.name, saga.version), saga)
        if other is not saga:
            raise SagaDefinitionError(
                f"saga {saga.name!r} version {saga.version}",
                f"is defined by {other.__module__}.{other.__name__} and {saga.__module__}.{saga.__name__}. "
                "Give one another name, or raise its version",
            )
        if pin_of(saga) in self._by_pin:
            return
        self._by_pin[pin_of(saga)] = saga()
        for child in saga.plan.children():
            self._register(child)
        for event in (*(wait.event for wait in saga.plan.waits()), *(start.event for start in saga.plan.starts)):
            self.messages.register(event)

    def _known_events(self) -> dict[str, KnownEvent]:
        leaves = [leaf for saga in self._by_pin.values() for leaf in saga.plan.waits()]
        latest = {name: self.named(name) for name, _ in self._by_name}
        starts = [(saga, start) for saga in latest.values() for start in saga.plan.starts]
        heard = (*(leaf.event for leaf in leaves), *(start.event for _, start in starts))
        return {
            event.wire_name: KnownEvent(
                event,
                tuple(leaf for leaf in leaves if leaf.event is event),
                tuple(one for one in starts if one[1].event is event),
            )
            for event in heard
        }

    @property
    def participants(self) -> Sequence[str]:
        """The queues that their commands go to, each once."""
        leaves = (leaf for saga in self._by_pin.values() for leaf in saga.plan.leaves.values())
        return tuple(dict.fromkeys(leaf.step.participant for leaf in leaves if isinstance(leaf, CommandLeaf)))

    @property
    def pins(self) -> Sequence[Pin]:
        """The definitions known here."""
        return tuple(self._by_pin)

    def find(self, pin: Pin) -> Saga[Any] | None:
        """The definition an instance is pinned to, if this process has it."""
        return self._by_pin.get(pin)

    def named(self, name: str) -> type[Saga[Any]]:
        """The latest version of a saga.

        Raises:
            UnknownDefinition: none is registered by this name.
        """
        versions = [version for known, version in self._by_name if known == name]
        if not versions:
            raise UnknownDefinition(name)
        return self._by_name[name, max(versions)]

    def version(self, name: str, version: int) -> type[Saga[Any]] | None:
        """This version of a saga, if this process has it."""
        return self._by_name.get((name, version))

    def version_or_latest(self, name: str, version: int | None) -> type[Saga[Any]] | None:
        """This version of a saga, or its latest one, if this process has it."""
        latest = max((known for other, known in self._by_name if other == name), default=0)
        return self.version(name, latest if version is None else version)

    def __iter__(self) -> Any:
        return iter(self._by_name.values())


def pin_of(saga: type[Saga[Any]]) -> Pin:
    """What instances of this definition are pinned to."""
    return Pin(saga.name, saga.version, saga.plan.fingerprint)
