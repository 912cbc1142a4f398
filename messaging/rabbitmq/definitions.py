"""What a queue of ours needs on RabbitMQ, as values: declared, checked, printed and compared from this one place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final, TypeAlias

from messaging.transport import QueueSpec, QueueType, dead_letter_queue

Argument: TypeAlias = str | int | bool

STANDING_DELAYS: Final = tuple(timedelta(seconds=seconds) for seconds in (1, 10, 60, 600, 3600, 86400))
"""Delays for services that may not declare a queue when they need one; each has its queue beforehand."""
# Newer brokers give every quorum queue a limit of 20; what lies in dead letters must survive being looked at.
_NO_DELIVERY_LIMIT: Final = 1_000_000
_OWN_FIELDS: Final = ("durable", "auto_delete", "type")


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue as it is declared."""

    name: str
    arguments: Mapping[str, Argument] = field(default_factory=dict[str, Argument])
    durable: bool = True
    auto_delete: bool = False

    def __str__(self) -> str:
        return f"queue {self.name!r}"

    def properties(self) -> dict[str, Argument]:
        """All that the broker compares, by its own names."""
        return {"durable": self.durable, "auto_delete": self.auto_delete, **self.arguments}

    def with_properties(self, properties: Mapping[str, Argument]) -> Queue:
        """The same queue, defined so."""
        durable, auto_delete = bool(properties["durable"]), bool(properties["auto_delete"])
        return Queue(self.name, _arguments(properties), durable, auto_delete)


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange as it is declared."""

    name: str
    type: str
    arguments: Mapping[str, Argument] = field(default_factory=dict[str, Argument])
    durable: bool = True
    auto_delete: bool = False
    owned: str = ""
    """The queue that it marks as somebody's; nothing is published to such an exchange."""

    def __str__(self) -> str:
        return f"exchange {self.name!r}"

    def properties(self) -> dict[str, Argument]:
        """All that the broker compares, by its own names."""
        return {"type": self.type, "durable": self.durable, "auto_delete": self.auto_delete, **self.arguments}

    def with_properties(self, properties: Mapping[str, Argument]) -> Exchange:
        """The same exchange, defined so."""
        durable, auto_delete = bool(properties["durable"]), bool(properties["auto_delete"])
        return Exchange(self.name, str(properties["type"]), _arguments(properties), durable, auto_delete, self.owned)


@dataclass(frozen=True, slots=True)
class Bound:
    """A binding as it is declared."""

    queue: str
    exchange: str
    routing_key: str

    def __str__(self) -> str:
        return f"binding of queue {self.queue!r} to exchange {self.exchange!r} by {self.routing_key!r}"


Part: TypeAlias = Queue | Exchange | Bound


@dataclass(frozen=True, slots=True)
class Layout:
    """How names and queues look on this installation's broker."""

    prefix: str = ""
    queue_type: QueueType = "quorum"
    standing_delays: bool = False
    """Whether queues for delays are there beforehand, rather than declared when they are needed."""
    transient: frozenset[str] = frozenset()
    """Exchanges that are shared with another framework: named without the prefix, and not durable."""

    def exchange(self, name: str, kind: str) -> Exchange:
        """An exchange that messages are published to."""
        return Exchange(self.exchange_name(name), kind, durable=name not in self.transient)

    def exchange_name(self, name: str) -> str:
        """An exchange's name on the wire."""
        return name if name in self.transient else self.full(name)

    def full(self, name: str) -> str:
        """The name on the wire; the default exchange has none."""
        return self.prefix + name if name else ""

    def parts(self, spec: QueueSpec) -> tuple[Part, ...]:
        """All that a queue needs, in an order in which it can be declared."""
        return tuple(self._parts(spec))

    def dead(self, spec: QueueSpec) -> Queue:
        """The queue that keeps the dead letters of another."""
        kind = self._type(spec)
        arguments: dict[str, Argument] = {"x-queue-type": kind}
        if kind == "quorum":
            arguments["x-delivery-limit"] = _NO_DELIVERY_LIMIT
        return Queue(self.full(dead_letter_queue(spec.name)), arguments)

    def delay(self, queue: str, delay: timedelta, *, kept_unused: timedelta | None) -> Queue:
        """A queue that holds a message for `delay` and then gives it to `queue`; a standing one is kept for ever."""
        target, milliseconds = self.full(queue), _milliseconds(delay)
        arguments = {**self._dead_lettering_to(target, self.queue_type), "x-message-ttl": milliseconds}
        if kept_unused is None:
            return Queue(f"{target}.retry.{milliseconds}", arguments)
        return Queue(
            f"{target}.delay.{milliseconds}", {**arguments, "x-expires": milliseconds + _milliseconds(kept_unused)}
        )

    def _parts(self, spec: QueueSpec) -> Iterator[Part]:
        name = self.full(spec.name)
        if spec.owner:
            # A broker does not compare arguments of queues that it does not know, but it does compare an
            # exchange's alternate: so the mark is an exchange that nothing is published to, whose alternate
            # exchange bears the owner's name and does not exist.
            yield Exchange(f"{name}.owner", "fanout", {"alternate-exchange": spec.owner}, owned=name)
        if spec.expires_after is None:
            yield self.dead(spec)
        yield Queue(name, self._queue_arguments(spec))
        for binding in spec.bindings:
            exchange = binding.exchange if binding.absolute else self.exchange_name(binding.exchange)
            if not binding.absolute:
                yield self.exchange(binding.exchange, binding.kind)
            yield Bound(name, exchange, binding.routing_key)
        if self.standing_delays and spec.expires_after is None:
            yield from (self.delay(spec.name, delay, kept_unused=None) for delay in STANDING_DELAYS)

    def _queue_arguments(self, spec: QueueSpec) -> dict[str, Argument]:
        kind = self._type(spec)
        if spec.expires_after is not None:
            return {"x-queue-type": kind, "x-expires": _milliseconds(spec.expires_after)}
        arguments = self._dead_lettering_to(self.full(dead_letter_queue(spec.name)), kind)
        if kind == "quorum":
            arguments["x-delivery-limit"] = spec.delivery_limit
        if spec.consumer_timeout is not None:
            arguments["x-consumer-timeout"] = _milliseconds(spec.consumer_timeout)
        return arguments

    def _type(self, spec: QueueSpec) -> QueueType:
        return spec.queue_type or self.queue_type

    @staticmethod
    def _dead_lettering_to(queue: str, kind: QueueType) -> dict[str, Argument]:
        arguments: dict[str, Argument] = {
            "x-queue-type": kind,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
            "x-overflow": "reject-publish",
        }
        if kind == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        return arguments


def _arguments(properties: Mapping[str, Argument]) -> dict[str, Argument]:
    return {name: value for name, value in properties.items() if name not in _OWN_FIELDS}


def _milliseconds(duration: timedelta) -> int:
    return max(1, round(duration / timedelta(milliseconds=1)))
