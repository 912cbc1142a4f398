"""The relay: what was committed is sent, sooner or later, whatever dies in between.

A row of the outbox says in `send_after` when it is due. A relay claims what is due by writing the end of
its lease there, commits, publishes, and deletes what was confirmed. Killed between any two of these, the
lease runs out and another relay, or the next process, sends the message again with the same id.

Rows with an ordering key leave one after the other. Only the first row of a key can be claimed, with those
that follow it, and whoever sends a row has seen the one before it confirmed, or found it gone, which is the
same. So the first copies of a key's messages arrive in order, whatever dies; leases only spare second copies.
A row that cannot be sent backs off and holds up its key: nothing of that key overtakes it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from messaging import failpoints
from messaging.errors import NotConfirmed, PublishError
from messaging.retry import Retry, wait_before
from messaging.transport import Outgoing, Transport

logger = logging.getLogger(__name__)

MAX_ORDERING_KEY_CHARACTERS: Final = 255

_UNSENDABLE: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(minutes=1))
_UNCONFIRMED: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(seconds=10))
_DATABASE_AWAY: Final = Retry(max_attempts=None, backoff=timedelta(milliseconds=200), cap=timedelta(seconds=10))
_ENDS_WITHIN: Final = timedelta(seconds=2)


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


@dataclass(frozen=True, slots=True)
class Claimed:
    """Rows to send, and whether there may be more of them at once."""

    rows: Sequence[OutboxRow]
    more: bool = False


class OutboxRows(Protocol):
    """The outbox table; each call is a transaction of its own."""

    async def claim(self, *, now: datetime, lease_until: datetime, limit: int) -> Claimed:
        """Take about `limit` of what is due, oldest first, so that no other relay takes it before the lease ends.

        Of an ordering key, its first row if that is due, and what follows it in order.
        """
        ...

    async def settle(self, sent: Sequence[str], put_off: Sequence[PutOff], *, now: datetime) -> None:
        """Forget what was confirmed, and make due what comes next in its order; count each failed try."""
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
        # In memory a message is under way until it is handled: one slow consumer must not stop all.
        at_once = self._settings.batches_at_once if self._survives else 1024
        self._most_rows = at_once * self._settings.batch
        self._rows_under_way = 0
        self._room = asyncio.Event()
        self._sending: set[asyncio.Task[None]] = set()
        self._ended = _Ended()
        self._marking = asyncio.Lock()
        self._nudged = asyncio.Event()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
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
            if self._sending:
                await asyncio.wait(self._sending)
        finally:
            for sending in self._sending:
                sending.cancel()

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
        claimed = Claimed((), more=True)
        while claimed.more and not claimed.rows:
            claimed = await self._claim()
        await asyncio.gather(*(self._send(chain) for chain in _chains(claimed.rows)))
        return len(claimed.rows)

    async def _start_batch(self) -> bool:
        """Claim a batch and let it be published beside others; return whether there may be more."""
        while self._rows_under_way >= self._most_rows:
            self._room.clear()
            await self._room.wait()
        self._nudged.clear()
        claimed = await self._claim()
        for chain in _chains(claimed.rows):
            self._rows_under_way += len(chain.rows)
            task = asyncio.create_task(self._send_safely(chain))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return claimed.more

    async def _claim(self) -> Claimed:
        now = self._clock()
        claimed = await self._rows.claim(now=now, lease_until=now + self._lease, limit=self._settings.batch)
        if claimed.rows:
            failpoints.reached("relay.claimed")
        return claimed

    async def _send_safely(self, chain: _Chain) -> None:
        try:
            await self._send(chain)
        except Exception as error:  # noqa: BLE001 - the lease runs out and the rows are sent again
            logger.warning("Messages were published but not marked: %s. They are sent again.", error)
        finally:
            self._rows_under_way -= len(chain.rows)
            self._room.set()
        if chain.in_order:
            self._nudged.set()  # what was written behind them meanwhile can be claimed now

    async def _send(self, chain: _Chain) -> None:
        """Publish a chain up to the first that is not confirmed, and write down what became of it.

        Publishing ends within half the lease; what would begin in its second quarter is left for the next claim,
        so that nothing is given too little time.
        """
        clock = asyncio.get_running_loop().time
        begun, lease = clock(), self._lease.total_seconds()
        # A key's rows are marked together: as long as its first one is there, they are this relay's.
        sent: list[str] = []
        for wave in chain.waves():
            confirmed, failed = await self._publish(wave, timedelta(seconds=begun + lease / 2 - clock()))
            sent += confirmed
            self._ended.put_off += failed
            if failed or self._stopping or clock() > begun + lease / 4:
                break
        self._ended.sent += sent
        await self._mark()

    async def _publish(self, rows: Sequence[OutboxRow], timeout: timedelta) -> tuple[list[str], list[PutOff]]:
        """Publish rows together; return which were confirmed, and when the others are due."""
        messages = [replace(row.outgoing, until_handled=not self._survives) for row in rows]
        outcomes = await self._transport.publish(messages, timeout=timeout)
        failpoints.reached("relay.published")
        confirmed = [row.id for row, outcome in zip(rows, outcomes, strict=True) if outcome is None]
        return confirmed, [self._put_off(row, error) for row, error in zip(rows, outcomes, strict=True) if error]

    async def _mark(self) -> None:
        """Write down what has ended; who waited here meanwhile finds his written by the next, with many others'."""
        async with self._marking:
            ended, self._ended = self._ended, _Ended()
            if ended.sent or ended.put_off:
                await self._rows.settle(ended.sent, ended.put_off, now=self._clock())
                failpoints.reached("relay.marked")

    def _put_off(self, row: OutboxRow, error: PublishError) -> PutOff:
        tries = row.send_attempts + 1
        policy = _UNCONFIRMED if isinstance(error, NotConfirmed) else _UNSENDABLE
        if tries == 1:
            key = row.outgoing.ordering_key
            held = f", and what follows with ordering key {key!r} waits for it" if key else ""
            logger.warning("%s. It stays in the outbox and is tried again%s.", error, held)
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


@asynccontextmanager
async def relaying(relay: Relay) -> AsyncGenerator[Relay]:
    """Run a relay for as long as the block lasts, and let it mark what it has published.

    What it cannot mark within two seconds is sent again by the next one, with the same message ids.
    """
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        await asyncio.wait([running], timeout=_ENDS_WITHIN.total_seconds())
        running.cancel()


@dataclass(frozen=True, slots=True)
class _Chain:
    """Claimed rows that share their fate: all that need no order, or those of one ordering key."""

    rows: Sequence[OutboxRow]
    in_order: bool

    def waves(self) -> list[Sequence[OutboxRow]]:
        """What may be under way together."""
        return [[row] for row in self.rows] if self.in_order else [self.rows]


def _chains(rows: Sequence[OutboxRow]) -> list[_Chain]:
    by_key: dict[str, list[OutboxRow]] = {}
    for row in rows:
        by_key.setdefault(row.outgoing.ordering_key, []).append(row)
    return [_Chain(of_key, in_order=key != "") for key, of_key in by_key.items()]


@dataclass(slots=True)
class _Ended:
    """What became of rows, and is still to be written down."""

    sent: list[str] = field(default_factory=list[str])
    put_off: list[PutOff] = field(default_factory=list[PutOff])
