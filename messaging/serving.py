"""Serving: services in this process until it is told to end, and the parts of that which others use."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.consumer import ServiceRunner
from messaging.errors import SettingsError
from messaging.logged import MessageIds
from messaging.middleware import Middleware
from messaging.printable import LineFormatter
from messaging.service import Service
from messaging.wiring import transport_from

if TYPE_CHECKING:
    from messaging.settings import MessagingSettings
    from messaging.transport import Transport

logger = logging.getLogger(__name__)

_COLLECT_AT: Final = (25_000, 20, 20)
"""New objects until the next look at them, and every how many looks the older ones are looked at as well."""

Waiting: TypeAlias = Callable[[], Coroutine[Any, Any, None]]
"""Waits for a part that should not end, and raises what ended it."""


def run_services(*services: Service, settings: MessagingSettings | None = None) -> None:
    """Run services in this process, on the configured broker; memory unless configured otherwise.

    Returns after SIGTERM or Ctrl-C, once what was under way is finished; a second signal exits at once.
    To be called in the main thread.

    Raises:
        SettingsError: there is nothing to run, or a setting is wrong.
        TransportError: the broker cannot be reached, or a service can consume no more.
    """
    show_logs()
    asyncio.run(_serve(services, settings))


def tell_running(services: Iterable[Service]) -> None:
    """Say in the log what runs, and how to end it."""
    logger.info("Running %s. Stop with Ctrl-C.", ", ".join(f"service {service.name!r}" for service in services))


def tell_stopping() -> None:
    """Say in the log why it does not end at once."""
    logger.info("Stopping: finishing what is under way.")


def show_logs() -> None:
    """Have logs shown on stderr, unless the program has said what becomes of them."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler()
        handler.addFilter(MessageIds())
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s%(ids)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        quieten_libraries()


def quieten_libraries() -> None:
    """Keep libraries from telling at length what our own log lines tell in one."""
    for chatty in ("alembic", "aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def collect_rarely() -> None:
    """Spare the cyclic garbage collector what lives as long as the process; for one that does nothing but serve.

    Each look at what a program has imported costs as much as deciding dozens of messages, and a batch makes thousands
    of objects that die without it.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AT)


async def _serve(services: Sequence[Service], settings: MessagingSettings | None) -> None:
    if not services:
        raise SettingsError("nothing to run. Name at least one Service")
    from messaging.settings import MessagingSettings

    settings = settings or MessagingSettings()
    async with AsyncExitStack() as stack:
        stop = stop_signal()
        middleware = await stack.enter_async_context(measured(settings))
        transport = await stack.enter_async_context(opened(settings))
        failed = await stack.enter_async_context(
            serving(services, transport, limits=settings.limits, middleware=middleware)
        )
        collect_rarely()
        tell_running(services)
        await either(stop, failed)
        tell_stopping()


@asynccontextmanager
async def opened(settings: MessagingSettings | None, *, app_id: str = "sagasmith") -> AsyncGenerator[Transport]:
    """The transport that the settings ask for, open for as long as the block lasts.

    Raises:
        TransportError: the broker cannot be reached.
    """
    from messaging.settings import MessagingSettings

    transport = transport_from(settings or MessagingSettings(), app_id=app_id)
    await transport.open()
    try:
        yield transport
    finally:
        await transport.close()


@asynccontextmanager
async def measured(settings: MessagingSettings) -> AsyncGenerator[tuple[Middleware, ...]]:
    """Where a port for metrics is set, answer there for as long as the block lasts; yields what counts.

    Raises:
        SettingsError: the port is taken, or the client for Prometheus is not installed.
    """
    if settings.metrics_port is None:
        yield ()
        return
    try:
        from messaging.metrics import Metrics, metrics_served
    except ImportError as missing:
        raise SettingsError(f"MESSAGING_METRICS_PORT is set. {missing}") from missing
    async with metrics_served(settings.metrics_address, settings.metrics_port):
        yield (Metrics(),)


@asynccontextmanager
async def serving(
    services: Iterable[Service],
    transport: Transport,
    *,
    limits: Limits = DEFAULT_LIMITS,
    middleware: Sequence[Middleware] = (),
) -> AsyncGenerator[asyncio.Event]:
    """Run services on an open transport for as long as the block lasts, then drain.

    Yields an event that is set when one has ended by itself, which is always an error; the block's end raises it.
    """
    async with AsyncExitStack() as stack:
        parts = [await started(service, transport, stack, limits=limits, middleware=middleware) for service in services]
        yield await stack.enter_async_context(watched(parts))


async def started(
    service: Service,
    transport: Transport,
    stack: AsyncExitStack,
    *,
    limits: Limits = DEFAULT_LIMITS,
    middleware: Sequence[Middleware] = (),
) -> Waiting:
    """Start a service, have the stack stop it, and return what waits for its failure.

    `middleware` stands around the service's own; what it uses already is not put there twice.
    """
    used = {type(one) for one in service.middleware}
    outer = [one for one in middleware if type(one) not in used]
    runner = ServiceRunner(service, transport, limits=limits, middleware=outer)
    await runner.start()
    stack.push_async_callback(runner.stop)
    return runner.wait


@asynccontextmanager
async def watched(parts: Iterable[Waiting]) -> AsyncGenerator[asyncio.Event]:
    """Wait for parts that should not end; yields the event that one has. The block's end raises its error."""
    failed = asyncio.Event()
    watchers = [asyncio.create_task(part()) for part in parts]
    for watcher in watchers:
        watcher.add_done_callback(lambda _: failed.set())
    ended: list[asyncio.Task[None]] = []
    try:
        yield failed
        ended = [watcher for watcher in watchers if watcher.done()]
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
    for watcher in ended:
        watcher.result()


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets, for this event loop; a second signal ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_exit, number, stop)
    return stop


def _stop_or_exit(number: int, stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()


async def either(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
