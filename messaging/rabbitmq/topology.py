"""Queues, exchanges and bindings as RabbitMQ holds them, under the prefix of this installation."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from messaging.envelope import Destination
from messaging.errors import TopologyMismatch, TopologyMissing, TransportError
from messaging.queue_state import QueueState
from messaging.rabbitmq.connection import Link
from messaging.rabbitmq.declaring import Declaring, Missing, NotAllowed
from messaging.rabbitmq.definitions import STANDING_DELAYS, Bound, Exchange, Layout, Queue
from messaging.transport import QueueSpec

log = logging.getLogger(__name__)

DELAY_STEPS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)
)
LONGEST_DELAY: Final = timedelta(days=40)
_DELAY_QUEUE_KEPT: Final = timedelta(hours=1)
_DELAY_QUEUE_FRESH_SECONDS: Final = 60.0


def delay_step(after: timedelta) -> timedelta:
    """The delay that is really used: the next step, so that there are few queues; whole days past the last.

    Raises:
        ValueError: longer than a broker can time.
    """
    if after > LONGEST_DELAY:
        raise ValueError(f"a delivery can be put off by at most {LONGEST_DELAY.days} days, not by {after}")
    if after <= DELAY_STEPS[-1]:
        return DELAY_STEPS[bisect_left(DELAY_STEPS, after)]
    return timedelta(days=-(-after // timedelta(days=1)))


def standing_delay(after: timedelta) -> timedelta:
    """The delay where queues for them are there beforehand: the next of those, and the longest past it."""
    return STANDING_DELAYS[min(bisect_left(STANDING_DELAYS, after), len(STANDING_DELAYS) - 1)]


class Topology:
    """What was declared is remembered and declared again when the broker has lost it.

    Passive, nothing is ever declared: what is needed is looked for, by name.
    """

    def __init__(self, control: Link, layout: Layout, *, passive: bool = False) -> None:
        self._broker = control.broker
        self._declaring = Declaring(control)
        self._layout = layout
        self._passive = passive
        self._specs: dict[str, QueueSpec] = {}
        self._exchanges: dict[str, bool] = {}
        self._delays: dict[str, float] = {}

    def full(self, name: str) -> str:
        """The name on the wire; the default exchange has none."""
        return self._layout.full(name)

    def address(self, destination: Destination) -> tuple[str, str]:
        """Exchange and routing key on the wire."""
        if destination.absolute:
            return destination.exchange, destination.routing_key
        if destination.exchange:
            return self._layout.exchange_name(destination.exchange), destination.routing_key
        return "", self.full(destination.routing_key)

    async def declare(self, specs: Sequence[QueueSpec]) -> None:
        """Declare queues with all they need, and remember them; passive, look whether all is there.

        Raises:
            TopologyMismatch: one exists with another definition.
            TopologyMissing: passive, and something is not there; all that is not is told.
            TransportError: the broker is away, or does not let us.
        """
        if self._passive:
            await self._look_for(specs)
        for spec in specs:
            if not self._passive:
                await self._declaring.declare(self._layout.parts(spec))
            self._specs[spec.name] = spec

    async def restore(self, queue: str) -> None:
        """Declare a queue again, if it was declared here.

        Raises:
            TransportError: as `declare`.
        """
        spec = self._specs.get(queue)
        if spec is not None and not self._passive:
            await self._declaring.declare(self._layout.parts(spec))

    async def restore_all(self) -> None:
        """Declare everything again, after a reconnect."""
        self.forget_exchanges()
        self._delays.clear()
        for queue in list(self._specs):
            try:
                await self.restore(queue)
            except TransportError as problem:
                log.warning("not declared again: %s", problem)

    def forget_exchanges(self) -> None:
        """Take nothing for granted: an exchange was missing after all, or the broker is another one."""
        self._exchanges.clear()

    def exchange_known(self, destination: Destination) -> bool:
        """Whether a destination's exchange is known to exist."""
        return self._exchanges.get(self.address(destination)[0], False)

    async def exchange_exists(self, destination: Destination) -> bool:
        """Make sure of a destination's exchange before publishing to it.

        Our own is declared; one that exists in another kind, or that we may not declare, is left as it is.
        Somebody else's is looked for only.

        Raises:
            TransportError: the broker is away.
        """
        exchange, _ = self.address(destination)
        if not exchange:
            return True
        if exchange not in self._exchanges:
            self._exchanges[exchange] = await self._exchange_exists(exchange, destination)
        exists = self._exchanges[exchange]
        if not exists:
            del self._exchanges[exchange]  # it may be there the next time
        return exists

    async def dead_letters(self, queue: str) -> str:
        """Declare the queue that keeps the dead letters of `queue` and return its full name."""
        dead = self._layout.dead(self._specs.get(queue, QueueSpec(queue)))
        if not self._passive:
            await self._declaring.declare([dead])
        return dead.name

    async def delay_queue(self, queue: str, after: timedelta) -> str:
        """A queue that holds a message for about `after` and then gives it to `queue`; its full name.

        It outlives its last use by an hour. Publishing is no use to the broker, so it is declared again
        when the last time is a minute ago. Passive, it is one of a few that stand there for ever.
        """
        if self._passive:
            return self._layout.delay(queue, standing_delay(after), kept_unused=None).name
        delay = self._layout.delay(queue, delay_step(after), kept_unused=_DELAY_QUEUE_KEPT)
        now = asyncio.get_running_loop().time()
        if now - self._delays.get(delay.name, float("-inf")) > _DELAY_QUEUE_FRESH_SECONDS:
            await self._declaring.declare([delay])
            self._delays[delay.name] = now
        return delay.name

    def forget_delay(self, name: str) -> None:
        """A delay queue is gone."""
        self._delays.pop(name, None)

    async def count(self, queue: str) -> int:
        """How many messages are ready in the broker; none in a queue that does not exist.

        Raises:
            TransportError: the broker is away.
        """
        state = await self.state(queue)
        return 0 if state is None else state.ready

    async def state(self, queue: str) -> QueueState | None:
        """What a queue is like; None when there is no such queue.

        Raises:
            TransportError: the broker is away.
        """
        try:
            return await self._declaring.found(Queue(self.full(queue)))
        except Missing:
            return None

    async def _look_for(self, specs: Sequence[QueueSpec]) -> None:
        missing: dict[str, None] = {}
        for part in (part for spec in specs for part in self._layout.parts(spec)):
            # Whether a binding is there, a broker tells nobody.
            if not isinstance(part, Bound) and not await self._declaring.exists(part):
                missing[str(part)] = None
        if missing:
            raise TopologyMissing(list(missing), str(self._broker))

    async def _exchange_exists(self, name: str, destination: Destination) -> bool:
        if destination.absolute or self._passive:
            return await self._declaring.exists(Exchange(name, destination.kind))
        try:
            await self._declaring.declare([self._layout.exchange(destination.exchange, destination.kind)])
        except (TopologyMismatch, NotAllowed) as problem:
            log.info("publishing to exchange %r as it is: %s", name, problem)
        return True
