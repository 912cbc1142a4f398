"""The engine's loop: deliveries first, then what is due, for as long as the service runs.

A transient error of the database delays a batch and never loses it; a batch that fails otherwise is
split until the one bad item is alone, which is put aside while the others go on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from messaging import failpoints
from messaging.errors import PublishError
from messaging.logged import ids_of
from messaging.printable import traceback_text
from messaging.retry import Retry, wait_before
from messaging.transport import Delivery
from orchestrator.engine import Engine
from orchestrator.incoming import Events, Read, Reply, Start, Undecodable, Unmatched, read_event, read_reply
from orchestrator.intake import Intake
from orchestrator.registry import SagaRegistry
from orchestrator.store_records import DueWork
from orchestrator.watching import nothing

logger = logging.getLogger(__name__)

T = TypeVar("T")
Item = TypeVar("Item", Reply | Unmatched, Events | Start | Unmatched)

_AGAIN: Final = Retry(max_attempts=None, backoff=timedelta(milliseconds=50), cap=timedelta(seconds=5), jitter=0.5)


@dataclass(frozen=True, slots=True)
class LoopSettings:
    """How often the loop looks at the database without being told to."""

    poll: timedelta = timedelta(milliseconds=100)
    """For new and due sagas, signals and unsent commands."""
    sweep: timedelta = timedelta(seconds=5)
    """For kept events and waits that missed each other."""


class EngineLoop:
    """Runs the engine over its two queues and its database."""

    def __init__(
        self,
        engine: Engine,
        registry: SagaRegistry,
        replies: Intake,
        events: Intake,
        wake: asyncio.Event,
        settings: LoopSettings | None = None,
    ) -> None:
        self._engine, self._registry = engine, registry
        self._replies, self._events, self._wake = replies, events, wake
        self._settings = settings or LoopSettings()
        self._stopping = False
        self._nudged, self._soon = True, False
        self._next_poll = self._next_sweep = 0.0
        engine.locks_changed = self._look_soon

    def nudge(self) -> None:
        """Tell that something was committed that concerns this engine; it looks at once."""
        self._nudged = True
        self._wake.set()

    def _look_soon(self) -> None:
        """Look at the whole database as soon as the deliveries at hand are handled."""
        self._soon, self._next_poll = True, 0.0
        self._wake.set()

    def stop(self) -> None:
        """Let `run` end after the batch it is in."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Work until `stop`."""
        batch = self._engine.settings.batch
        pumps = [asyncio.create_task(intake.pump(batch)) for intake in (self._replies, self._events)]
        try:
            while not self._stopping:
                await self._wait()
                await self._take_deliveries()
                if self._is_time():
                    await self._look_at_the_database()
                elif self._nudged:
                    await self._take_on_sagas()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _wait(self) -> None:
        now = asyncio.get_running_loop().time()
        timeout = 0 if self._nudged else max(self._next_poll - now, 0)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), timeout)
        self._wake.clear()

    def _is_time(self) -> bool:
        return asyncio.get_running_loop().time() >= self._next_poll

    # -- deliveries

    async def _take_deliveries(self) -> None:
        limit = self._engine.settings.batch
        while not self._stopping and not (self._replies.empty and self._events.empty):
            if deliveries := self._replies.take(limit):
                await self.handle_replies(deliveries)
            if deliveries := self._events.take(limit):
                await self.handle_events(deliveries)
            if asyncio.get_running_loop().time() >= self._next_poll + self._settings.poll.total_seconds():
                return  # the database has its turn, however busy the queues are

    async def handle_replies(self, deliveries: Sequence[Delivery]) -> None:
        """Decide what was taken from the reply queue, and settle it once that is committed."""
        failpoints.reached("engine.received")
        limits = self._engine.settings.limits
        items = [read_reply(delivery, limits) for delivery in deliveries]
        usable = [item for item in items if isinstance(item, Reply | Unmatched)]
        with self._watched(deliveries):
            left = await self._unlocked(usable)
            undone = {id(item) for item in left}
            await self._settle(self._replies, items, [item.delivery for item in usable if id(item) not in undone])
            await self._settle(self._replies, (), await self._each(left, self._engine.locked, self._replies))

    async def _unlocked(self, items: Sequence[Reply | Unmatched]) -> Sequence[Reply | Unmatched]:
        """Settled before the rest is begun, which may be tried again and again: nothing is to be told twice."""
        try:
            return await self._persistently(lambda: self._engine.unlocked(items))
        except Exception as error:  # noqa: BLE001 - under locks the batch is split until the one that raises is alone
            logger.warning(
                "%d replies could not be decided together: %s. Deciding them again under locks.", len(items), error
            )
            return items

    async def handle_events(self, deliveries: Sequence[Delivery]) -> None:
        """Keep what was taken from the event queue, settle it, and hand it to the sagas that wait."""
        failpoints.reached("engine.received")
        settings = self._engine.settings
        known = self._registry.events
        items = [read_event(d, known, settings.limits, settings.keep_events_for) for d in deliveries]
        usable = [item for item in items if isinstance(item, Events | Start | Unmatched)]
        new: list[Any] = []

        async def keep(some: Sequence[Events | Start | Unmatched]) -> None:
            new.extend(await self._engine.keep_events(some))

        with self._watched(deliveries):
            done = await self._each(usable, keep, self._events)
            await self._settle(self._events, items, done)
            self._nudged = self._nudged or any(isinstance(item, Start) for item in usable)
            if new:
                if await self._persistently(lambda: self._engine.start_by_events(new)):
                    self._nudged = True
                await self._persistently(lambda: self._engine.match_events(new))

    @contextlib.contextmanager
    def _watched(self, deliveries: Sequence[Delivery]) -> Generator[None]:
        watching = self._engine.watching
        ended = watching.taken(deliveries) if watching is not None else nothing
        try:
            yield
        finally:
            ended()

    async def _settle(self, intake: Intake, items: Sequence[Read], done: Sequence[Delivery]) -> None:
        await intake.handled(done)
        if done:
            failpoints.reached("engine.acked")
        for item in items:
            if isinstance(item, Undecodable):
                await self._dead_letter(intake, item.delivery, "undecodable", item.reason)

    async def _dead_letter(self, intake: Intake, delivery: Delivery, reason: str, detail: str) -> None:
        ids = ids_of(delivery.envelope)
        logger.warning("Message %r is dead-lettered: %s", delivery.envelope.message_id, detail, extra=ids)
        try:
            await intake.subscription.dead_letter(delivery, reason, detail)
        except PublishError as error:
            logger.warning("%s. The message comes again.", error)
            return
        if self._engine.watching is not None:
            self._engine.watching.dead_lettered(1)

    async def _each(
        self, items: Sequence[Item], work: Callable[[Sequence[Item]], Awaitable[Any]], intake: Intake
    ) -> list[Delivery]:
        """Do the work on all items; split where it fails. Returns the deliveries that are done with."""
        if not items:
            return []
        deliveries = [item.delivery for item in items]
        try:
            await self._persistently(lambda: work(items))
            return deliveries
        except Exception as error:  # noqa: BLE001 - the batch is split until the one that raises is alone
            if len(items) == 1:
                detail = traceback_text(error)
                await self._dead_letter(intake, deliveries[0], f"{type(error).__name__} while it was handled", detail)
                return []
        half: int = len(items) // 2
        return [*await self._each(items[:half], work, intake), *await self._each(items[half:], work, intake)]

    # -- the database

    async def _look_at_the_database(self) -> None:
        """New and due sagas, signals, unsent commands, news of the sender; again while there is more."""
        self._soon = False
        more = [await self._scan(lambda _: self._engine.settle_locks())]
        due = await self._due()
        if self._nudged or due.sagas:
            more.append(await self._take_on_sagas())
        if due.signals:
            more.append(await self._scan(self._engine.signals))
        if due.commands:
            more.append(await self._scan(lambda _: self._engine.claim_unsent()))
        await self._scan(lambda _: self._engine.flush_marks())
        now = asyncio.get_running_loop().time()
        if now >= self._next_sweep:
            more.append(await self._scan(lambda _: self._engine.start_by_events()))
            more.append(await self._scan(lambda _: self._engine.match_events()))
            self._next_sweep = now + self._settings.sweep.total_seconds()
        self._next_poll = now if self._soon or any(more) else now + self._settings.poll.total_seconds()

    async def _due(self) -> DueWork:
        """One look says which of three scans are worth their transactions: mostly none, or new sagas alone."""
        await self._caught_up()  # it needs more than one call
        try:
            return await self._engine.due()
        except Exception:  # noqa: BLE001 - the scans say what is wrong
            return DueWork(sagas=True, signals=True, commands=True)

    async def _caught_up(self) -> bool:
        return await self._replies.caught_up() and await self._events.caught_up()

    async def _take_on_sagas(self) -> bool:
        self._nudged = False
        deadlines = await self._caught_up()
        more = await self._scan(lambda limit: self._engine.wake(limit, deadlines=deadlines))
        self._nudged = self._nudged or more
        return more

    async def _scan(self, work: Callable[[int], Awaitable[int]]) -> bool:
        """Do what will be done again at the next look; return whether there is more.

        An error of the database delays it. Another one halves the scan until the one bad saga is alone,
        which is blocked then, while the others go on.
        """
        limit = self._engine.settings.batch
        while True:
            try:
                return await work(limit) >= limit
            except Exception as error:  # a scan never ends the loop
                if self._engine.may_succeed_again(error):
                    logger.warning("The database could not be scanned: %s. Trying again.", error)
                    self._fall_behind()
                    await asyncio.sleep(wait_before(_AGAIN, 3, seed=str(id(error))).total_seconds())
                    return False
                if limit == 1:
                    logger.exception("A saga could not be decided or written; it is blocked")
                    return await self._quarantine(error)
                limit //= 2

    async def _quarantine(self, error: Exception) -> bool:
        try:
            await self._engine.quarantine(error)
        except Exception:  # the database may be away just now: the scan finds the saga again
            logger.exception("The saga could not be blocked either; the scan is repeated")
            return False
        return True

    async def _persistently(self, work: Callable[[], Awaitable[T]]) -> T:
        """Do it until it succeeds, as long as errors are transient; the batch waits, nothing is nacked.

        Raises:
            Exception: the first error that would come again.
        """
        tries = 0
        while True:
            try:
                return await work()
            except Exception as error:
                if not self._engine.may_succeed_again(error):
                    raise
                tries += 1
                if tries == 1 or tries % 20 == 0:
                    logger.warning("A batch could not be committed: %s. Trying again until it can.", error)
                self._fall_behind()
                await asyncio.sleep(wait_before(_AGAIN, tries, seed=str(id(error))).total_seconds())

    def _fall_behind(self) -> None:
        self._replies.fell_behind()
        self._events.fell_behind()
