"""The topology without running anything: declared beforehand, or compared with what is on the broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Literal, Self

from messaging.errors import TopologyMismatch
from messaging.rabbitmq.broker import Broker
from messaging.rabbitmq.connection import Link
from messaging.rabbitmq.declaring import Declaring, Missing, NotAllowed
from messaging.rabbitmq.definitions import Bound, Layout, Part
from messaging.rabbitmq.mismatch import Difference
from messaging.transport import QueueSpec


@dataclass(frozen=True, slots=True)
class Compared:
    """A part of the topology beside what is on the broker."""

    part: Part
    state: Literal["same", "missing", "different", "unknown"]
    differences: tuple[Difference, ...] = ()
    note: str = ""
    """Why it is unknown, or what the broker says."""


class Inspection:
    """A connection for looking and declaring: `async with Inspection(broker, layout) as inspection`.

    Args:
        broker: where.
        layout: what is wanted there.
        patience: how long entering waits for the broker.
    """

    def __init__(self, broker: Broker, layout: Layout, *, patience: timedelta) -> None:
        self._link = Link(broker, "topology", tapped=False)
        self._declaring = Declaring(self._link)
        self._layout, self._patience = layout, patience

    async def __aenter__(self) -> Self:
        """Connect.

        Raises:
            TransportError: the broker cannot be reached, or refuses us.
        """
        try:
            await self._link.open(self._patience)
        except BaseException:
            await self._link.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._link.close()

    async def apply(self, specs: Sequence[QueueSpec]) -> list[Part]:
        """Declare all that these queues need, whatever `MESSAGING_TOPOLOGY` says, and return it. Idempotent.

        Raises:
            TopologyMismatch: one exists with another definition. What comes before it is declared.
            TransportError: the broker is away, or does not let us.
        """
        parts = self.parts(specs)
        await self._declaring.declare(parts)
        return parts

    async def compare(self, specs: Sequence[QueueSpec]) -> list[Compared]:
        """Say of each part whether the broker has it, and has it so. Changes nothing.

        Raises:
            TransportError: the broker is away.
        """
        return [await self._compared(part) for part in self.parts(specs)]

    def parts(self, specs: Iterable[QueueSpec]) -> list[Part]:
        """All that these queues need, each once."""
        return list({str(part): part for spec in specs for part in self._layout.parts(spec)}.values())

    async def _compared(self, part: Part) -> Compared:
        if isinstance(part, Bound):
            return Compared(part, "unknown", note="bindings cannot be asked for over AMQP; apply declares them")
        try:
            differences = await self._declaring.differences(part)
        except Missing:
            return Compared(part, "missing")
        except NotAllowed:
            return Compared(part, "unknown", note="it exists; how it is defined, only users who may configure are told")
        except TopologyMismatch as problem:
            return Compared(part, "different", note=str(problem))
        return Compared(part, "different" if differences else "same", tuple(differences))
