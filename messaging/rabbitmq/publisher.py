"""Confirmed publishing in batches, over a channel that is opened again whenever it is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from messaging.backoff import Backoff
from messaging.envelope import Destination
from messaging.errors import (
    MessageTooLarge,
    NotConfirmed,
    PublishError,
    TransportError,
    Unroutable,
)
from messaging.rabbitmq import properties, wire
from messaging.rabbitmq.connection import Link, Session
from messaging.rabbitmq.lines import RETURNED, Batch, FastLine, Line, NotAsExpected, Parcel, PlainLine
from messaging.rabbitmq.losses import keeps_on, told
from messaging.rabbitmq.topology import Topology
from messaging.transport import Outgoing

log = logging.getLogger(__name__)

# What a frame with a content header holds beside the properties, which must fit into that one frame.
_HEADER_FRAME_BYTES = 20


@dataclass(eq=False, slots=True)
class _Pending:
    """A parcel without an outcome, at its place in the answer."""

    index: int
    parcel: Parcel
    destination: Destination | None


class Publisher:
    """Keeps a publishing channel open and sends batches over it."""

    def __init__(self, link: Link, topology: Topology, *, app_id: str, max_body_bytes: int) -> None:
        self._link = link
        self._topology = topology
        self._app_id = app_id
        self._max_body_bytes = max_body_bytes
        self._line: Line | None = None
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Event()
        self._unanswered_probes = 0
        self._proven = False
        self._max_properties_bytes = 4096  # what every broker takes; until one has said more

    async def publish(self, messages: Sequence[Outgoing], timeout: timedelta) -> list[PublishError | None]:
        """Publish all and return one outcome each, in order, within `timeout`."""
        outcomes: list[PublishError | None] = [None] * len(messages)
        pending: list[_Pending] = []
        for index, outgoing in enumerate(messages):
            try:
                pending.append(_Pending(index, self._parcel(outgoing), outgoing.destination))
            except _Unsendable as unsendable:
                outcomes[index] = unsendable.error
        if pending:
            told_by_index = await self._within(pending, len(messages), timeout)
            for item in pending:
                problem = told_by_index[item.index]
                if problem is not None:
                    outgoing = messages[item.index]
                    outcomes[item.index] = error_of(outgoing.envelope.message_id, str(outgoing.destination), problem)
        return outcomes

    async def move(self, parcel: Parcel, timeout: timedelta) -> str | None:
        """Send one message to a queue as it is; returns None, `RETURNED`, or a problem."""
        if len(parcel.properties) > self._max_properties_bytes:
            return self._too_many_headers(len(parcel.properties))
        outcomes = await self._within([_Pending(0, parcel, None)], 1, timeout)
        return outcomes[0]

    @property
    def max_properties_bytes(self) -> int:
        """What the properties of a message may have."""
        return self._max_properties_bytes

    def _too_many_headers(self, size: int) -> str:
        return f"its headers and properties have {size} bytes, the broker takes {self._max_properties_bytes}"

    async def ready(self) -> bool:
        """Wait for the channel; returns whether batches leave in one write."""
        return isinstance(await self._current_line(), FastLine)

    async def close(self) -> None:
        """Stop opening channels; the connection is closed by its owner."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _parcel(self, outgoing: Outgoing) -> Parcel:
        envelope, destination = outgoing.envelope, outgoing.destination
        if len(envelope.body) > self._max_body_bytes:
            raise _Unsendable(
                MessageTooLarge(
                    envelope.message_id,
                    str(destination),
                    f"its body has {len(envelope.body)} bytes, the limit is {self._max_body_bytes}. "
                    "Send a reference to the data instead, or raise the limit",
                )
            )
        exchange, routing_key = self._topology.address(destination)
        try:
            encoded = properties.encoded(envelope, self._app_id)
            # Kept for the frame to come; names that are too long must be told before the batch is on its way.
            wire.publish_address(exchange, routing_key)
        except (ValueError, TypeError) as problem:
            raise _Unsendable(
                PublishError(envelope.message_id, str(destination), f"it cannot be put on the wire: {problem}")
            ) from problem
        if len(encoded) > self._max_properties_bytes:
            raise _Unsendable(
                MessageTooLarge(envelope.message_id, str(destination), self._too_many_headers(len(encoded)))
            )
        return Parcel(
            envelope.message_id.encode(),
            exchange,
            routing_key,
            destination.mandatory,
            encoded,
            envelope.body,
        )

    async def _within(self, pending: list[_Pending], size: int, timeout: timedelta) -> list[str | None]:
        seconds = timeout.total_seconds()
        outcomes: list[str | None] = [""] * size  # empty: never sent
        phase = _Phase()
        try:
            async with asyncio.timeout(seconds):
                await self._send_all(pending, outcomes, phase)
        except TimeoutError:
            for item in pending:
                if outcomes[item.index] == "":
                    outcomes[item.index] = f"not sent within {seconds:g} s: {self._standstill(phase)}"
        except TransportError as problem:
            for item in pending:
                if outcomes[item.index] == "":
                    outcomes[item.index] = f"not sent: {problem}"
        return outcomes

    def _standstill(self, phase: _Phase) -> str:
        return f"{phase.waiting_for} ({self._link.last_error})" if self._line is None else phase.waiting_for

    async def _send_all(self, pending: list[_Pending], outcomes: list[str | None], phase: _Phase) -> None:
        while pending:
            phase.waiting_for = "the broker is away"
            line = await self._current_line()
            phase.waiting_for = "the broker takes no messages at the moment"
            await line.clear()
            if line.lost.done():
                continue
            # An exchange that is still to be declared keeps nobody else waiting.
            ready, unsure = self._apart_by_exchange(pending)
            if not ready:
                phase.waiting_for = "its exchange could not be declared"
                pending = await self._with_exchange(unsure, outcomes)
                continue
            now, later = _apart(line, ready)
            if now:
                await self._send(line, now, outcomes)
            else:
                phase.waiting_for = "an earlier copy of it is still unconfirmed"
                await line.freed()
            pending = later + unsure

    async def _send(self, line: Line, now: list[_Pending], outcomes: list[str | None]) -> None:
        batch: Batch = line.send([item.parcel for item in now])
        try:
            await batch.done
        finally:
            # Also when the time is up: what was confirmed by then is.
            for item, outcome in zip(now, batch.outcomes, strict=True):
                outcomes[item.index] = outcome

    def _apart_by_exchange(self, pending: list[_Pending]) -> tuple[list[_Pending], list[_Pending]]:
        """Those whose exchange is known to exist, and the others."""
        ready: list[_Pending] = []
        unsure: list[_Pending] = []
        for item in pending:
            destination = item.destination
            known = destination is None or not destination.exchange or self._topology.exchange_known(destination)
            (ready if known else unsure).append(item)
        return ready, unsure

    async def _with_exchange(self, unsure: list[_Pending], outcomes: list[str | None]) -> list[_Pending]:
        """Those whose exchange exists; publishing to one that does not would cost the others the channel."""
        sendable: list[_Pending] = []
        for item in unsure:
            try:
                exists = item.destination is None or await self._topology.exchange_exists(item.destination)
            except TransportError as problem:
                outcomes[item.index] = f"not sent: {problem}"
                continue
            if exists:
                sendable.append(item)
            else:
                outcomes[item.index] = RETURNED
        return sendable

    async def _current_line(self) -> Line:
        while self._line is None or self._line.lost.done():
            if self._task is None:
                self._task = asyncio.create_task(self._keep_open(), name="rabbitmq publisher")
            elif self._task.done():
                raise TransportError("the transport is closed")
            await self._turn.wait()
        return self._line

    async def _keep_open(self) -> None:
        try:
            await self._reopen_for_ever()
        except TransportError:
            self._line = None  # the link is closed
        finally:
            self._tell()

    async def _reopen_for_ever(self) -> None:
        backoff = Backoff()
        while True:
            session = await self._link.session()
            try:
                self._line = line = await self._opened(session)
            except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - see `keeps_on`
                keeps_on(problem)
                log.warning("cannot open a publishing channel: %s", self._link.broker.masked(told(problem)))
            else:
                backoff.reset()
                self._tell()
                reason = await asyncio.shield(line.lost)
                self._line = None
                # It may have been closed because an exchange that we knew is gone.
                self._topology.forget_exchanges()
                log.warning("publishing stopped: %s", self._link.broker.masked(reason))
            await asyncio.sleep(backoff.next())

    async def _opened(self, session: Session) -> Line:
        self._max_properties_bytes = session.frame_max - _HEADER_FRAME_BYTES
        if session.tap is not None and self._link.tapped:
            try:
                line = await FastLine.opened(session)
            except NotAsExpected as problem:
                self._give_up_speed(str(problem))
            except TimeoutError:
                # Once may be the network's fault, and always if it has worked before.
                self._unanswered_probes += 1
                if self._proven or self._unanswered_probes < 2:
                    raise
                self._give_up_speed("messages to nowhere are neither returned nor confirmed")
            else:
                self._proven = True
                return line
        return await PlainLine.opened(session)

    def _give_up_speed(self, problem: str) -> None:
        log.warning("publishing message by message, which is slower: %s", problem)
        self._link.tapped = False

    def _tell(self) -> None:
        self._turn.set()
        self._turn = asyncio.Event()


@dataclass(slots=True)
class _Phase:
    """What a publish waits for, to be told when the time is up."""

    waiting_for: str = ""


class _Unsendable(Exception):
    """A message that fails before anything is sent."""

    def __init__(self, error: PublishError) -> None:
        self.error = error
        super().__init__(str(error))


def _apart(line: Line, pending: list[_Pending]) -> tuple[list[_Pending], list[_Pending]]:
    """Those that can leave now, and those whose id is under way or comes a second time."""
    now: list[_Pending] = []
    later: list[_Pending] = []
    ids: set[bytes] = set()
    for item in pending:
        message_id = item.parcel.message_id
        if message_id in ids or line.in_flight(message_id):
            later.append(item)
        else:
            ids.add(message_id)
            now.append(item)
    return now, later


def error_of(message_id: str, destination: str, problem: str) -> PublishError:
    """What became of a message that has an outcome other than None, as an error."""
    if problem == RETURNED:
        return Unroutable(message_id, destination)
    return NotConfirmed(message_id, destination, problem)
