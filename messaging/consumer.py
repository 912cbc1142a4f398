"""Consuming: one queue, handlers in tasks of our own, a bounded number at a time, ended gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.handling import Handling
from messaging.middleware import Middleware, composed
from messaging.outage import Outage
from messaging.processing import Processing
from messaging.service import Service
from messaging.settling import Settling
from messaging.splitting import subscribed
from messaging.transport import Subscription, Transport

if TYPE_CHECKING:
    from messaging.outbox import Relay, RelaySettings

logger = logging.getLogger(__name__)

_RELAY_ENDS_WITHIN: Final = timedelta(seconds=2)
_PURGE_EVERY: Final = timedelta(hours=1)


class ServiceRunner:
    """Runs one service: its queue, its handlers, and the relay of its outbox. Runs once.

    Args:
        service: what to run.
        transport: an open transport; it is not closed with the runner.
        stop_within: how long `stop` lets running handlers finish before it cancels them. What is
            cancelled is rolled back and comes again.
        limits: what a body may be at most, where the service does not say.
        relay: how the service's outbox is relayed, where it has a database.
        middleware: stands around the service's own.
    """

    def __init__(
        self,
        service: Service,
        transport: Transport,
        *,
        stop_within: timedelta = timedelta(seconds=20),
        limits: Limits = DEFAULT_LIMITS,
        relay: RelaySettings | None = None,
        middleware: Sequence[Middleware] = (),
    ) -> None:
        self._service, self._transport, self._stop_within = service, transport, stop_within
        self._limits, self._relay_settings = limits, relay
        self._middleware = middleware
        self._threads = ThreadPoolExecutor(service.max_in_flight, thread_name_prefix=service.name)
        self._outage = Outage(f"database of service {service.name!r}")
        self._running: set[asyncio.Task[None]] = set()
        self._room = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._taking: asyncio.Task[None] | None = None
        self._subscription: Subscription | None = None
        self._relay: Relay | None = None

    async def start(self) -> None:
        """Declare the service's queue and begin to consume it.

        Raises:
            TransportError: the broker refuses.
        """
        service, transport = self._service, self._transport
        await transport.declare([service.queue_spec()])
        around = composed((*self._middleware, *service.middleware))
        subscription = await subscribed(transport, service.name, prefetch_messages=service.prefetch_messages)
        self._subscription = subscription
        self._settling = Settling(transport, subscription)
        self._handling = Handling(service, self._threads, around, self._limits, self._settling.told)
        self._background = [asyncio.create_task(self._settling.run())]
        if service.sessions is not None:
            self._start_relay()
        processing = Processing(
            service, transport, subscription, self._settling, self._handling, self._outage, self._nudge, around
        )
        self._taking = asyncio.create_task(self._take(subscription, processing))

    async def wait(self) -> None:
        """Wait until the service stops.

        Raises:
            TransportError: it can consume no more.
        """
        if self._taking is not None:
            await asyncio.wait([self._taking])
            if not self._taking.cancelled():
                self._taking.result()

    async def run(self) -> None:
        """Start, and serve until `stop` is called or this is cancelled."""
        await self.start()
        try:
            await self.wait()
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Take nothing more, finish what runs within the bound, settle it, and end. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        await _cancel([self._taking] if self._taking else [])
        self._outage.stop()
        await self._finish()
        await self._stop_relay()
        await _cancel(self._background)
        await subscription.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _finish(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._stop_within.total_seconds()
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=self._stop_within.total_seconds())
            if late:
                logger.warning("Service %r stops with %d handlers unfinished", self._service.name, len(late))
            await _cancel(late)
        try:
            await asyncio.wait_for(self._settling.flushed(), max(1.0, deadline - loop.time()))
        except TimeoutError:
            logger.warning("Service %r stops with answers unsent: they are sent again", self._service.name)

    async def _take(self, subscription: Subscription, processing: Processing) -> None:
        while True:
            await self._outage.over()
            free = self._service.max_in_flight - len(self._running)
            if free <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            for delivery in await subscription.take(free):
                task = asyncio.create_task(processing.process(delivery))
                self._running.add(task)
                task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._room.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("Service %r left a delivery unsettled", self._service.name, exc_info=error)

    def _start_relay(self) -> None:
        from messaging.outbox import Relay
        from messaging.outbox_age import show_age
        from messaging.sql.outbox import SqlOutbox

        assert self._service.sessions is not None
        rows = SqlOutbox(self._service.sessions, schema=self._service.schema)
        self._relay = Relay(rows, self._transport, self._relay_settings)
        self._no_more_nudges = self._service.nudges(self._relay.nudge)
        self._relaying = asyncio.create_task(self._relay.run())
        self._background += [self._relaying, asyncio.create_task(self._purge())]
        around = (*self._middleware, *self._service.middleware)
        self._background.append(asyncio.create_task(show_age(self._service.name, rows, around)))

    async def _stop_relay(self) -> None:
        """Let what is being published be marked; what is not is sent again by the next process."""
        if self._relay is not None:
            self._no_more_nudges()
            self._relay.stop()
            await asyncio.wait([self._relaying], timeout=_RELAY_ENDS_WITHIN.total_seconds())

    def _nudge(self) -> None:
        if self._relay is not None:
            self._relay.nudge()

    async def _purge(self) -> None:
        while True:
            await asyncio.sleep(_PURGE_EVERY.total_seconds())
            try:
                await self._handling.purge()
            except Exception as error:  # noqa: BLE001 - old claims hurt nobody; the next time will do
                logger.warning("Old claims of service %r were not deleted: %s", self._service.name, error)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel and wait for the end; what they raise is theirs."""
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    for task in tasks:
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task
