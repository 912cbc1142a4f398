"""Who takes part in an exchange of messages: what each party receives, and what it sends."""

from __future__ import annotations

from dataclasses import dataclass

from messaging.envelope import Destination, to_subscribers
from messaging.messages import Message
from messaging.service import Service
from messaging.transport import Binding


@dataclass(frozen=True, slots=True)
class Received:
    """A command or an event that a party handles."""

    message: type[Message]
    binding: Binding | None = None
    """What brings an event to the party's queue. Commands come straight to the queue, and by this as well."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A command or an event that a party sends."""

    message: type[Message]
    to: Destination


@dataclass(frozen=True, slots=True)
class Party:
    """A service, or whoever else receives and sends."""

    name: str
    queue: str
    receives: tuple[Received, ...] = ()
    sends: tuple[Sent, ...] = ()


def party_of(service: Service) -> Party:
    """Tell what a service handles, and which events it says it publishes."""
    receives = [Received(handler.message, service.binding_of(handler.message)) for handler in service.handlers]
    sends = [Sent(event, to_subscribers(event.wire_name)) for event in service.publishes]
    return Party(service.name, service.name, tuple(receives), tuple(sends))
