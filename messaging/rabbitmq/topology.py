"""Queues, exchanges and bindings as RabbitMQ holds them, under the prefix of this installation."""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, Literal, TypeAlias

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from messaging.envelope import Destination
from messaging.errors import TopologyMismatch, TransportError
from messaging.rabbitmq.connection import (
    BROKER_ERRORS,
    RPC_SECONDS,
    Link,
    cancelled_ourselves,
    passing_channel,
    told,
)
from messaging.transport import QueueSpec, dead_letter_queue

log = logging.getLogger(__name__)

QueueType: TypeAlias = Literal["quorum", "classic"]

DELAY_STEPS: Final = tuple(
    timedelta(seconds=seconds)
    for seconds in (0.1, 0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 43200, 86400)
)
LONGEST_DELAY: Final = timedelta(days=40)
_DELAY_QUEUE_KEPT: Final = timedelta(hours=1)
_DELAY_QUEUE_FRESH_SECONDS: Final = 60.0
# Newer brokers give every quorum queue a limit of 20; what lies in dead letters must survive being looked at.
_NO_DELIVERY_LIMIT: Final = 1_000_000


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


class Topology:
    """What was declared is remembered and declared again when the broker has lost it."""

    def __init__(self, control: Link, prefix: str, queue_type: QueueType) -> None:
        self._control = control
        self._prefix = prefix
        self._type: QueueType = queue_type
        self._specs: dict[str, QueueSpec] = {}
        self._exchanges: dict[str, bool] = {}
        self._delays: dict[str, float] = {}

    def full(self, name: str) -> str:
        """The name on the wire; the default exchange has none."""
        return self._prefix + name if name else ""

    def address(self, destination: Destination) -> tuple[str, str]:
        """Exchange and routing key on the wire."""
        if destination.absolute:
            return destination.exchange, destination.routing_key
        if destination.exchange:
            return self._prefix + destination.exchange, destination.routing_key
        return "", self._prefix + destination.routing_key

    async def declare(self, specs: Sequence[QueueSpec]) -> None:
        """Declare queues with their dead letters, exchanges and bindings, and remember them.

        Raises:
            TopologyMismatch: one exists with another definition.
            TransportError: the broker is away, or does not let us.
        """
        for spec in specs:
            await self._declare(spec)
            self._specs[spec.name] = spec

    async def restore(self, queue: str) -> None:
        """Declare a queue again, if it was declared here.

        Raises:
            TransportError: as `declare`.
        """
        spec = self._specs.get(queue)
        if spec is not None:
            await self._declare(spec)

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
        name = self.full(dead_letter_queue(queue))
        async with self._declaring(f"queue {name!r}") as channel:
            await self._declare_dead(channel, name)
        return name

    async def delay_queue(self, queue: str, after: timedelta) -> str:
        """A queue that holds a message for about `after` and then gives it to `queue`; its full name.

        It outlives its last use by an hour. Publishing is no use to the broker, so it is declared again
        when the last time is a minute ago.
        """
        target, milliseconds = self.full(queue), round(delay_step(after) / timedelta(milliseconds=1))
        name = f"{target}.delay.{milliseconds}"
        now = asyncio.get_running_loop().time()
        if now - self._delays.get(name, float("-inf")) > _DELAY_QUEUE_FRESH_SECONDS:
            arguments = {
                **self._dead_lettering_to(target),
                "x-message-ttl": milliseconds,
                "x-expires": milliseconds + round(_DELAY_QUEUE_KEPT / timedelta(milliseconds=1)),
            }
            async with self._declaring(f"queue {name!r}") as channel:
                await channel.queue_declare(name, durable=True, arguments=arguments, timeout=RPC_SECONDS)
            self._delays[name] = now
        return name

    def forget_delay(self, name: str) -> None:
        """A delay queue is gone."""
        self._delays.pop(name, None)

    async def count(self, queue: str) -> int:
        """How many messages are ready in the broker; none in a queue that does not exist.

        Raises:
            TransportError: the broker is away.
        """
        name = self.full(queue)
        try:
            async with self._declaring(f"queue {name!r}") as channel:
                found = await channel.queue_declare(name, passive=True, timeout=RPC_SECONDS)
                return found.message_count or 0
        except _Missing:
            return 0

    async def _declare(self, spec: QueueSpec) -> None:
        name = self.full(spec.name)
        if spec.owner:
            await self._claim(name, spec.owner)
        async with self._declaring(f"queue {name!r}") as channel:
            if spec.expires_after is None:
                await self._declare_dead(channel, f"{name}.dead")
            await channel.queue_declare(name, durable=True, arguments=self._arguments(spec, name), timeout=RPC_SECONDS)
        for binding in spec.bindings:
            exchange = self.full(binding.exchange)
            async with self._declaring(f"exchange {exchange!r}") as channel:
                await channel.exchange_declare(exchange, exchange_type=binding.kind, durable=True, timeout=RPC_SECONDS)
                await channel.queue_bind(name, exchange, binding.routing_key, timeout=RPC_SECONDS)

    def _arguments(self, spec: QueueSpec, name: str) -> dict[str, Any]:
        if spec.expires_after is not None:
            return {"x-queue-type": self._type, "x-expires": round(spec.expires_after / timedelta(milliseconds=1))}
        arguments = self._dead_lettering_to(f"{name}.dead")
        if self._type == "quorum":
            arguments["x-delivery-limit"] = spec.delivery_limit
        return arguments

    async def _claim(self, queue: str, owner: str) -> None:
        """Mark a queue as its owner's, before it is declared.

        A broker does not compare arguments of queues that it does not know, but it does compare an
        exchange's alternate: so the mark is an exchange that nothing is published to, whose alternate
        exchange bears the owner's name and does not exist.
        """
        try:
            async with self._declaring(f"exchange '{queue}.owner'") as channel:
                await channel.exchange_declare(
                    f"{queue}.owner",
                    exchange_type="fanout",
                    durable=True,
                    arguments={"alternate-exchange": owner},
                    timeout=RPC_SECONDS,
                )
        except TopologyMismatch as problem:
            raise TopologyMismatch(
                f"queue {queue!r} belongs to another owner than {owner}: exchange '{queue}.owner' says so. "
                "Two systems, or a restored copy of one, must not take each other's messages: "
                "give this one a prefix of its own. "
                f"If the other owner is gone for good, delete exchange '{queue}.owner'."
            ) from problem

    async def _declare_dead(self, channel: AbstractChannel, name: str) -> None:
        arguments: dict[str, Any] = {"x-queue-type": self._type}
        if self._type == "quorum":
            arguments["x-delivery-limit"] = _NO_DELIVERY_LIMIT
        await channel.queue_declare(name, durable=True, arguments=arguments, timeout=RPC_SECONDS)

    def _dead_lettering_to(self, queue: str) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "x-queue-type": self._type,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
            "x-overflow": "reject-publish",
        }
        if self._type == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        return arguments

    async def _exchange_exists(self, exchange: str, destination: Destination) -> bool:
        try:
            async with self._declaring(f"exchange {exchange!r}") as channel:
                await channel.exchange_declare(
                    exchange,
                    exchange_type=destination.kind,
                    durable=True,
                    passive=destination.absolute,
                    timeout=RPC_SECONDS,
                )
        except _Missing:
            return False
        except (TopologyMismatch, _NotAllowed) as problem:
            log.info("publishing to exchange %r as it is: %s", exchange, problem)
        return True

    @asynccontextmanager
    async def _declaring(self, what: str) -> AsyncGenerator[AbstractChannel]:
        """A channel for declarations, with the broker's refusals in our words."""
        broker = self._control.broker
        try:
            async with passing_channel(self._control) as channel:
                yield channel
        except (ChannelPreconditionFailed, ChannelLockedResource) as problem:
            raise TopologyMismatch(
                f"{what} exists with another definition; the broker says: {problem}. "
                "Delete it once it is empty, or change the declaration back."
            ) from problem
        except ChannelNotFoundEntity as problem:
            raise _Missing(f"{what} does not exist; the broker says: {problem}.") from problem
        except ChannelAccessRefused as problem:
            raise _NotAllowed(
                f"{what} cannot be declared by this user; the broker says: {problem}. "
                "Grant it the right to configure, or declare the topology beforehand."
            ) from problem
        except (*BROKER_ERRORS, asyncio.CancelledError) as problem:
            if cancelled_ourselves(problem):
                raise
            raise TransportError(
                f"{what} could not be declared on {broker}: {broker.masked(told(problem))}."
            ) from problem


class _Missing(TransportError):
    """It was only looked for, and is not there."""


class _NotAllowed(TransportError):
    """The user has no right to it."""
