"""Sending many messages to one queue as one message of the broker, where its consumers are known to take that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Final

from messaging.around import TransportAround
from messaging.batches import MAX_ITEMS, batch_of, item_of
from messaging.envelope import Destination
from messaging.errors import NotConfirmed, PublishError, Unroutable
from messaging.transport import Outgoing, Transport

_LEAST_ITEMS: Final = 2


class Coalescing(TransportAround):
    """Another transport, and queues to which what is published together leaves joined, if it may.

        transport = Coalescing(RabbitTransport(url), {"payments"})

    Only what is published in one call and `may_join` is joined, in its order, at most 50 to a batch and never more than
    the largest body. A refused batch is told of each of its messages; whoever sends one again sends it alone.

    Args:
        transport: whose queues are consumed by services and orchestrators of this package, see `messaging.splitting`.
        queues: to which batches go, without the prefix; nobody is guessed to take them.
        max_body_bytes: what a batch may have.
    """

    def __init__(self, transport: Transport, queues: Iterable[str], *, max_body_bytes: int = 1 << 20) -> None:
        super().__init__(transport)
        self._queues = frozenset(queues)
        self._full_names = frozenset(map(transport.full_name, self._queues))
        self._max_body_bytes = max_body_bytes

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, joined where they may be; one outcome for each message, as if each had left alone."""
        parcels = self._parcels(messages)
        outcomes: list[PublishError | None] = [None] * len(messages)
        told = await super().publish([outgoing for outgoing, _ in parcels], timeout=timeout)
        for (_, places), error in zip(parcels, told, strict=True):
            for place in places:
                outcomes[place] = error if error is None or len(places) == 1 else _of_item(messages[place], error)
        return outcomes

    def _parcels(self, messages: Sequence[Outgoing]) -> list[tuple[Outgoing, list[int]]]:
        """What is to be published, each with the places of the messages that it holds."""
        joined: dict[Destination, _Joined] = {}
        parcels: list[tuple[int, Outgoing, list[int]]] = []
        for place, outgoing in enumerate(messages):
            item = item_of(outgoing.envelope) if self._may_join(outgoing) else None
            if item is None:
                parcels.append((place, outgoing, [place]))
            else:
                whole = joined.setdefault(outgoing.destination, _Joined(self._max_body_bytes))
                whole.add(place, item)
        for destination, whole in joined.items():
            for places, items in whole.batches:
                alone = len(places) < _LEAST_ITEMS
                outgoing = messages[places[0]] if alone else Outgoing(batch_of(items), destination)
                parcels.append((places[0], outgoing, places))
        return [(outgoing, places) for _, outgoing, places in sorted(parcels, key=lambda parcel: parcel[0])]

    def _may_join(self, outgoing: Outgoing) -> bool:
        to = outgoing.destination
        if not outgoing.may_join or outgoing.until_handled or outgoing.ordering_key or to.exchange:
            return False
        known = self._full_names if to.absolute else self._queues
        return to.routing_key in known and self.promises.parts


class _Joined:
    """What goes to one place, in batches that are not too large."""

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body_bytes, self._body_bytes = max_body_bytes, 0
        self.batches: list[tuple[list[int], list[bytes]]] = []

    def add(self, place: int, item: bytes) -> None:
        """Put a message into the last batch, or into a new one if that is full."""
        self._body_bytes += len(item) + 1
        if not self.batches or len(self.batches[-1][1]) >= MAX_ITEMS or self._body_bytes > self._max_body_bytes:
            self._body_bytes = len(item) + 2  # with the array's brackets
            self.batches.append(([], []))
        places, items = self.batches[-1]
        places.append(place)
        items.append(item)


def _of_item(outgoing: Outgoing, error: PublishError) -> PublishError:
    """What a batch's error says of a message in it: whatever was wrong with the batch need not be so of the message."""
    message_id, where = outgoing.envelope.message_id, str(outgoing.destination)
    if isinstance(error, Unroutable):
        return Unroutable(message_id, where)
    return NotConfirmed(message_id, where, f"in a batch: {error.problem}")
