"""A transport that puts some of what it sends into the words of those who read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

from messaging.around import TransportAround
from messaging.errors import PublishError
from messaging.transport import Outgoing, Transport

Dialect: TypeAlias = Callable[[Outgoing], Outgoing]
"""Puts a message into other words, or returns it as it is."""


class Speaking(TransportAround):
    """Another transport, and dialects that every message passes on its way out, in this order.

        bus = Bus(Speaking(transport, CloudEvents("/shop")))

    A message that cannot be put into other words fails alone. Nothing is changed on the way in: messages are
    understood where they are read, so that what is put off or dead-lettered stays as it came.
    """

    def __init__(self, transport: Transport, *dialects: Dialect) -> None:
        super().__init__(transport)
        self._dialects = dialects

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, each in the words of its reader."""
        spoken = [self._spoken(message) for message in messages]
        told = await super().publish([one for one in spoken if isinstance(one, Outgoing)], timeout=timeout)
        outcome = iter(told)
        return [next(outcome) if isinstance(one, Outgoing) else one for one in spoken]

    def _spoken(self, message: Outgoing) -> Outgoing | PublishError:
        spoken = message
        try:
            for dialect in self._dialects:
                spoken = dialect(spoken)
        except Exception as error:  # noqa: BLE001 - one message must not hold up the others of its batch
            problem = f"it cannot be put into the words of its reader: {error}"
            return PublishError(message.envelope.message_id, str(message.destination), problem)
        return spoken
