"""Declaring parts of the topology, or looking for them, with the broker's refusals in our words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from messaging.errors import TopologyMismatch, TransportError
from messaging.queue_state import QueueState
from messaging.rabbitmq.connection import RPC_SECONDS, Link, passing_channel
from messaging.rabbitmq.definitions import Bound, Exchange, Part, Queue
from messaging.rabbitmq.losses import BROKER_ERRORS, cancelled_ourselves, told, unharmed
from messaging.rabbitmq.mismatch import Difference, advice, difference_told, side_by_side

_MOST_DIFFERENCES: Final = 15


class Missing(TransportError):
    """It was only looked for, and is not there."""


class NotAllowed(TransportError):
    """The user has no right to it."""


class Otherwise(TopologyMismatch):
    """It exists with another definition."""

    def __init__(self, part: Part, refusal: str) -> None:
        self.part, self.refusal = part, refusal
        super().__init__(f"{part} exists with another definition; the broker says: {refusal}.")


@dataclass(slots=True)
class _Turn:
    """What is being declared at the moment, to be named in an error."""

    part: Part
    channel: AbstractChannel = field(init=False)


class Declaring:
    """Declares over passing channels, so that a refusal harms nobody else."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def declare(self, parts: Iterable[Part]) -> None:
        """Declare all, in order.

        Raises:
            TopologyMismatch: one exists with another definition; both are told side by side.
            NotAllowed: the user may not.
            TransportError: the broker is away.
        """
        try:
            await self._declare(list(parts))
        except Otherwise as otherwise:
            raise await self._explained(otherwise) from otherwise

    async def exists(self, part: Queue | Exchange) -> bool:
        """Whether there is a queue or exchange of this name, however defined.

        Raises:
            TransportError: the broker is away.
        """
        try:
            await self.found(part)
        except Missing:
            return False
        return True

    async def found(self, part: Queue | Exchange) -> QueueState:
        """What an existing queue is like; of an exchange, like an empty one.

        Raises:
            Missing: there is none of this name.
            TransportError: the broker is away.
        """
        async with self._turns(part) as turn:
            if isinstance(part, Exchange):
                await unharmed(turn.channel.exchange_declare(part.name, passive=True, timeout=RPC_SECONDS))
                return QueueState(0, 0)
            found = await unharmed(turn.channel.queue_declare(part.name, passive=True, timeout=RPC_SECONDS))
            return QueueState(found.message_count or 0, found.consumer_count or 0)

    async def differences(self, part: Queue | Exchange) -> list[Difference]:
        """In what an existing queue or exchange is otherwise than `part`; empty when it is the same.

        The broker tells one difference at a time, so what it has told is taken over and it is asked again.
        Asking is declaring, which changes nothing that exists: it is looked for before each question.

        Raises:
            Missing: it does not exist.
            NotAllowed: the user may not declare, so nothing is told.
            TransportError: the broker is away.
        """
        found: list[Difference] = []
        asked = part
        while len(found) < _MOST_DIFFERENCES:
            await self.found(part)
            try:
                await self._declare([asked])
            except Otherwise as otherwise:
                difference = difference_told(otherwise.refusal, asked)
                if difference is None or difference.name in {one.name for one in found}:
                    raise
                found.append(difference)
                asked = _taken_over(asked, difference)
            else:
                break
        return found

    async def _declare(self, parts: list[Part]) -> None:
        if not parts:
            return
        async with self._turns(parts[0]) as turn:
            for part in parts:
                turn.part = part
                await unharmed(_declared(turn.channel, part))

    async def _explained(self, otherwise: Otherwise) -> TopologyMismatch:
        """The mismatch with all its differences, where they can be found out."""
        part, broker = otherwise.part, self._link.broker
        if isinstance(part, Bound):
            return otherwise
        if isinstance(part, Exchange) and part.owned:
            return _of_another_owner(part)
        try:
            differences = await self.differences(part)
        except TransportError:
            differences = []
        if not differences:
            return TopologyMismatch(f"{otherwise} {advice(part)}")
        return TopologyMismatch(
            f"{part} on {broker} is not what the code declares:\n{side_by_side(differences)}\n{advice(part)}"
        )

    @asynccontextmanager
    async def _turns(self, first: Part) -> AsyncGenerator[_Turn]:
        """A channel for declarations, with what the broker refuses told by name."""
        turn, broker = _Turn(first), self._link.broker
        try:
            async with passing_channel(self._link) as turn.channel:
                yield turn
        except (ChannelPreconditionFailed, ChannelLockedResource) as problem:
            raise Otherwise(turn.part, str(problem)) from problem
        except ChannelNotFoundEntity as problem:
            raise Missing(f"{turn.part} does not exist; the broker says: {problem}.") from problem
        except ChannelAccessRefused as problem:
            raise NotAllowed(
                f"{turn.part} cannot be declared by this user; the broker says: {problem}. Grant it the right to "
                "configure; or have everything declared beforehand (saga topology apply TARGET...), and set "
                "MESSAGING_TOPOLOGY=passive."
            ) from problem
        except (*BROKER_ERRORS, asyncio.CancelledError) as problem:
            if cancelled_ourselves(problem):
                raise
            raise TransportError(
                f"{turn.part} could not be declared on {broker}: {broker.masked(told(problem))}."
            ) from problem


async def _declared(channel: AbstractChannel, part: Part) -> None:
    match part:
        case Queue():
            await channel.queue_declare(
                part.name,
                durable=part.durable,
                auto_delete=part.auto_delete,
                arguments=dict(part.arguments),
                timeout=RPC_SECONDS,
            )
        case Exchange():
            await channel.exchange_declare(
                part.name,
                exchange_type=part.type,
                durable=part.durable,
                auto_delete=part.auto_delete,
                arguments=dict(part.arguments),
                timeout=RPC_SECONDS,
            )
        case Bound():
            await channel.queue_bind(part.queue, part.exchange, part.routing_key, timeout=RPC_SECONDS)


def _taken_over(part: Queue | Exchange, difference: Difference) -> Queue | Exchange:
    properties = part.properties()
    properties.pop(difference.name, None)
    if difference.found is not None:
        properties[difference.name] = difference.found
    return part.with_properties(properties)


def _of_another_owner(mark: Exchange) -> TopologyMismatch:
    owner = mark.arguments["alternate-exchange"]
    return TopologyMismatch(
        f"queue {mark.owned!r} belongs to another owner than {owner}: {mark} says so. "
        "Two systems, or a restored copy of one, must not take each other's messages: "
        f"give this one a prefix of its own. If the other owner is gone for good, delete {mark}."
    )
