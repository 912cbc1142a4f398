"""How the keys of an installation are named."""

from __future__ import annotations

from dataclasses import dataclass

from messaging.envelope import Destination
from messaging.transport import Binding, dead_letter_queue


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    stream: str
    """What waits and what is in hand; its name is the queue's full name, and that of its consumer group."""
    about: str
    """A hash: owner, delivery limit, expiry."""
    alive: str
    """A sorted set: consumers by when they were last heard of, in the server's milliseconds."""
    delayed: str
    """A sorted set: whole messages by when they are due."""
    dead: str
    """The stream of dead letters."""


@dataclass(frozen=True, slots=True)
class Keys:
    """All keys begin with the prefix of the installation."""

    prefix: str = ""

    def full(self, queue: str) -> str:
        """The queue's full name: the key of its stream."""
        return f"{self.prefix}queue:{queue}"

    def queue(self, name: str) -> QueueKeys:
        """The keys of a queue."""
        return QueueKeys(
            self.full(name),
            f"{self.prefix}about:{name}",
            f"{self.prefix}alive:{name}",
            f"{self.prefix}delayed:{name}",
            self.full(dead_letter_queue(name)),
        )

    def bindings(self, exchange: str) -> str:
        """The key of an exchange: a hash of its bindings, its kind, and a version that each change renews."""
        return f"{self.prefix}bindings:{exchange}"

    def bindings_for(self, binding: Binding) -> str:
        """The bindings among which one belongs."""
        return binding.exchange if binding.absolute else self.bindings(binding.exchange)

    def handling(self, token: str) -> str:
        """The key that counts the copies of a message yet to be settled."""
        return f"{self.prefix}handling:{token}"

    def stream_of(self, destination: Destination) -> str:
        """The stream that a destination without exchange names."""
        return destination.routing_key if destination.absolute else self.full(destination.routing_key)

    def bindings_of(self, destination: Destination) -> str:
        """The bindings of a destination's exchange."""
        return destination.exchange if destination.absolute else self.bindings(destination.exchange)
