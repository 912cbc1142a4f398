"""Publishing in batches: each message into all its streams at once, and an outcome for each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from redis.exceptions import ResponseError

from messaging.backoff import Backoff
from messaging.errors import MessageTooLarge, NotConfirmed, PublishError, Unroutable
from messaging.redis import fields, scripts
from messaging.redis.handled import Handled
from messaging.redis.lua import Call, run_all
from messaging.redis.server import SERVER_ERRORS, Client, NotSent, Word
from messaging.redis.topology import Route, Topology
from messaging.transport import Outgoing

_STALE: Final = -1
_SENT_AT_ONCE: Final = 500
_BYTES_AT_ONCE: Final = 4 << 20
_COUNTED_LONGER: Final = timedelta(seconds=10)


@dataclass(eq=False, slots=True)
class _Parcel:
    """A message under way."""

    outgoing: Outgoing
    fields: list[bytes]
    handling: str = ""
    """The key that counts its copies, if somebody waits until it is handled."""
    route: Route | None = None
    sent: bool = False
    done: bool = False
    error: PublishError | None = None
    restored: bool = False

    def settle(self, error: PublishError | None) -> None:
        self.done, self.error = True, error

    def not_confirmed(self, problem: str) -> None:
        envelope, destination = self.outgoing.envelope, self.outgoing.destination
        self.settle(NotConfirmed(envelope.message_id, str(destination), problem))


class Publisher:
    """Sends batches. Two messages with one id are never under way at the same time."""

    def __init__(
        self, client: Client, topology: Topology, handled: Handled, *, app_id: str, max_body_bytes: int, waits: bool
    ) -> None:
        self._client, self._topology, self._handled = client, topology, handled
        self._app_id, self._max_body_bytes = app_id, max_body_bytes
        self._waits = waits
        self._under_way: set[str] = set()
        self._landed = asyncio.Event()
        self._last_error = "not connected yet"
        self._lost_queues = False

    async def publish(self, messages: Sequence[Outgoing], timeout: timedelta) -> list[PublishError | None]:
        """Publish all and return one outcome each, in order, within `timeout`."""
        parcels = [self._parcel(outgoing) for outgoing in messages]
        pending = [parcel for parcel in parcels if not parcel.done]
        if pending:
            await self._within(pending, timeout)
        return [parcel.error for parcel in parcels]

    def _parcel(self, outgoing: Outgoing) -> _Parcel:
        envelope, where = outgoing.envelope, str(outgoing.destination)
        parcel = _Parcel(outgoing, [])
        if len(envelope.body) > self._max_body_bytes:
            problem = (
                f"its body has {len(envelope.body)} bytes, the limit is {self._max_body_bytes}. "
                "Send a reference to the data instead, or raise the limit"
            )
            parcel.settle(MessageTooLarge(envelope.message_id, where, problem))
            return parcel
        try:
            parcel.fields = fields.encoded(envelope, self._app_id, outgoing.destination)
        except (ValueError, TypeError) as problem:
            parcel.settle(PublishError(envelope.message_id, where, f"it cannot be put on the wire: {problem}"))
        if self._waits and outgoing.until_handled:
            parcel.handling = self._handled.new_key()
        return parcel

    async def _within(self, pending: Sequence[_Parcel], timeout: timedelta) -> None:
        seconds = timeout.total_seconds()
        try:
            async with asyncio.timeout(seconds):
                async with self._alone({parcel.outgoing.envelope.message_id for parcel in pending}):
                    await self._send_all(pending, timeout)
                await self._wait_until_handled(pending)
        except TimeoutError:
            for parcel in pending:
                if not parcel.done and not parcel.sent:
                    parcel.not_confirmed(f"not sent within {seconds:g} s: {self._last_error}")
                elif not parcel.done:
                    what = "not handled" if parcel.handling else "no answer"
                    parcel.not_confirmed(f"{what} within {seconds:g} s")

    @asynccontextmanager
    async def _alone(self, ids: set[str]) -> AsyncGenerator[None]:
        """Wait until none of these is under way elsewhere, and have them to ourselves."""
        while not self._under_way.isdisjoint(ids):
            await self._landed.wait()
        self._under_way |= ids
        try:
            yield
        finally:
            self._under_way -= ids
            self._landed.set()
            self._landed = asyncio.Event()

    async def _send_all(self, parcels: Sequence[_Parcel], timeout: timedelta) -> None:
        backoff = Backoff()
        while pending := _part([parcel for parcel in parcels if not parcel.sent and not parcel.done]):
            try:
                answers = await self._send(pending, timeout)
            except NotSent as problem:
                self._last_error = str(problem)
                for parcel in pending:
                    parcel.sent = False
                await asyncio.sleep(backoff.next())
                continue
            except SERVER_ERRORS as problem:
                self._last_error = self._client.server.told(problem)
                for parcel in pending:
                    parcel.not_confirmed(self._last_error)
                continue
            for parcel, answer in zip(pending, answers, strict=True):
                self._answered(parcel, answer)

    async def _send(self, pending: Sequence[_Parcel], timeout: timedelta) -> list[Any]:
        life = round((timeout + _COUNTED_LONGER) / timedelta(milliseconds=1))
        calls: list[Call] = []
        if self._lost_queues:
            await self._topology.restore()
            self._lost_queues = False
        for parcel in pending:
            parcel.route = route = await self._topology.route(parcel.outgoing.destination)
            arguments: list[Word] = [route.version, parcel.handling, life, *parcel.fields]
            calls.append(Call(scripts.PUBLISH, [route.bindings, *route.streams], arguments))
        for parcel in pending:
            parcel.sent = True
        return await run_all(self._client, calls)

    def _answered(self, parcel: _Parcel, answer: Any) -> None:
        if isinstance(answer, ResponseError):
            parcel.not_confirmed(f"the server refuses: {self._client.server.told(answer)}")
        elif answer == _STALE and parcel.route is not None:
            parcel.sent = False
            self._topology.outdated(parcel.route.bindings)
        elif answer == 0 and parcel.outgoing.destination.mandatory:
            self._unroutable(parcel)
        elif answer == 0 or not parcel.handling:
            parcel.settle(None)

    def _unroutable(self, parcel: _Parcel) -> None:
        envelope, destination = parcel.outgoing.envelope, parcel.outgoing.destination
        if parcel.restored or not self._topology.declared_here(destination):
            parcel.settle(Unroutable(envelope.message_id, str(destination)))
            return
        # We have declared this queue, so the server has lost it.
        parcel.restored, parcel.sent = True, False
        self._lost_queues = True

    async def _wait_until_handled(self, parcels: Sequence[_Parcel]) -> None:
        waiting = [self._until_handled(parcel) for parcel in parcels if not parcel.done]
        if waiting:
            await asyncio.gather(*waiting)

    async def _until_handled(self, parcel: _Parcel) -> None:
        if await self._handled.wait(parcel.handling):
            parcel.settle(None)
        else:
            parcel.not_confirmed("before it was handled the server has lost it, or the transport was closed")


def _part(pending: list[_Parcel]) -> list[_Parcel]:
    """As many as go in one write without keeping everybody else waiting for long."""
    size = 0
    for count, parcel in enumerate(pending):
        size += len(parcel.outgoing.envelope.body)
        if count >= _SENT_AT_ONCE or (size > _BYTES_AT_ONCE and count):
            return pending[:count]
    return pending
