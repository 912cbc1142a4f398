"""The relay: what was committed is sent, sooner or later, whatever dies in between.

A row of the outbox says in `send_after` when it is due. A relay claims what is due by writing the end of
its lease there, commits, publishes, and deletes what was confirmed. Killed between any two of these, the
lease runs out and another relay, or the next process, sends the message again with the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from messaging import failpoints
from messaging.errors import NotConfirmed, PublishError
from messaging.retry import Retry, wait_before
from messaging.transport import Outgoing, Transport

logger = logging.getLogger(__name__)

_UNSENDABLE: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(minutes=1))
_UNCONFIRMED: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(seconds=10))
_DATABASE_AWAY: Final = Retry(max_attempts=None, backoff=timedelta(milliseconds=200), cap=timedelta(seconds=10))


def utc_now() -> datetime:
    """This process' clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A message that was claimed for sending."""

    id: str
    outgoing: Outgoing
    send_attempts: int


@dataclass(frozen=True, slots=True)
class PutOff:
    """A row that could not be sent: when to try again, and why."""

    id: str
    send_after: datetime
    error: str


class OutboxRows(Protocol):
    """The outbox table; each call is a transaction of its own."""

    async def claim(self, *, now: datetime, lease_until: datetime, limit: int) -> list[OutboxRow]:
        """Take what is due, oldest first, so that no other relay takes it before the lease ends."""
        ...

    async def delete(self, ids: Sequence[str]) -> None:
        """Forget what was confirmed."""
        ...

    async def put_off(self, rows: Sequence[PutOff]) -> None:
        """Count a failed try of each and write when the next is due."""
        ...

    async def release(self, *, now: datetime) -> None:
        """Make everything due now, whoever has claimed it."""
        ...


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How a relay works."""

    poll: timedelta = timedelta(seconds=1)
    """How long a message waits that was committed without a nudge to this process."""
    lease: timedelta = timedelta(seconds=30)
    """Publishing ends within half of it."""
    lease_in_memory: timedelta = timedelta(minutes=30)
    """The lease where the transport dies with this process, and the message counts as sent when handled."""
    batch: int = 200
    batches_at_once: int = 8


class Relay:
    """Publishes what is in an outbox, for as long as it runs; any number of them may run at once."""

    def __init__(
        self,
        rows: OutboxRows,
        transport: Transport,
        settings: RelaySettings | None = None,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._rows, self._transport, self._clock = rows, transport, clock
        self._settings = settings or RelaySettings()
        self._survives = transport.promises.survives_restart
        self._lease = self._settings.lease if self._survives else self._settings.lease_in_memory
        # In memory a batch is under way until its last message is handled: one slow consumer must not stop all.
        self._at_once = self._settings.batches_at_once if self._survives else 1024
        self._nudged = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._batches: set[asyncio.Task[None]] = set()
        self._failures = 0

    def nudge(self) -> None:
        """Tell, from any thread, that something was committed; it is sent without waiting for the poll."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        try:
            inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            inside = False
        if inside:
            self._nudged.set()
        else:
            loop.call_soon_threadsafe(self._nudged.set)

    async def run(self) -> None:
        """Relay until `stop`. No error of the database or the broker ends it."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._until_stopped()
            if self._batches:
                await asyncio.wait(self._batches)
        finally:
            for batch in self._batches:
                batch.cancel()

    async def _until_stopped(self) -> None:
        released = self._survives
        while not self._stopping:
            try:
                if not released:
                    await self._rows.release(now=self._clock())
                    released = True
                more = await self._start_batch()
                self._failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it was, the next pass tries again
                await self._wait(self._database_pause(error))
                continue
            if not more and not self._stopping:
                await self._wait(self._settings.poll)

    def stop(self) -> None:
        """Let `run` end once what is being published is settled."""
        self._stopping = True
        self._nudged.set()

    async def drain_once(self) -> int:
        """Send what is due now, and wait for the outcome; return how many were claimed."""
        claimed = await self._claim()
        if claimed:
            await self._send(claimed)
        return len(claimed)

    async def _start_batch(self) -> bool:
        """Claim a batch and let it be published beside others; return whether there may be more."""
        while len(self._batches) >= self._at_once:
            await asyncio.wait(self._batches, return_when=asyncio.FIRST_COMPLETED)
        self._nudged.clear()
        claimed = await self._claim()
        if claimed:
            task = asyncio.create_task(self._send_safely(claimed))
            self._batches.add(task)
            task.add_done_callback(self._batches.discard)
        return len(claimed) == self._settings.batch

    async def _claim(self) -> list[OutboxRow]:
        now = self._clock()
        claimed = await self._rows.claim(now=now, lease_until=now + self._lease, limit=self._settings.batch)
        if claimed:
            failpoints.reached("relay.claimed")
        return claimed

    async def _send_safely(self, rows: Sequence[OutboxRow]) -> None:
        try:
            await self._send(rows)
        except Exception as error:  # noqa: BLE001 - the lease runs out and the rows are sent again
            logger.warning("%d messages were published but not marked: %s. They are sent again.", len(rows), error)

    async def _send(self, rows: Sequence[OutboxRow]) -> None:
        messages = [replace(row.outgoing, until_handled=not self._survives) for row in rows]
        outcomes = await self._transport.publish(messages, timeout=self._lease / 2)
        failpoints.reached("relay.published")
        sent = [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None]
        failed = [self._put_off(row, error) for row, error in zip(rows, outcomes, strict=True) if error]
        if sent:
            await self._rows.delete(sent)
        if failed:
            await self._rows.put_off(failed)
        failpoints.reached("relay.marked")

    def _put_off(self, row: OutboxRow, error: PublishError) -> PutOff:
        tries = row.send_attempts + 1
        policy = _UNCONFIRMED if isinstance(error, NotConfirmed) else _UNSENDABLE
        if tries == 1:
            logger.warning("%s. It stays in the outbox and is tried again.", error)
        return PutOff(row.id, self._clock() + wait_before(policy, tries, seed=row.id), str(error))

    def _database_pause(self, error: Exception) -> timedelta:
        self._failures += 1
        if self._failures == 1:
            logger.warning("The outbox cannot be read: %s. Trying again until it can.", error)
        return wait_before(_DATABASE_AWAY, self._failures, seed=str(id(self)))

    async def _wait(self, at_most: timedelta) -> None:
        try:
            await asyncio.wait_for(self._nudged.wait(), at_most.total_seconds())
        except TimeoutError:
            return
