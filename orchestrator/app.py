"""The composition root: which store, which transport, which parts make a running process.

app = Orchestrator(sagas=[CreateOrderSaga])
run(app, orders, customers, warehouse)      # one process; or `saga run shop.main:app`
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from messaging.errors import SettingsError
from messaging.middleware import Middleware
from messaging.service import Service
from messaging.serving import (
    Waiting,
    collect_rarely,
    either,
    measured,
    opened,
    show_logs,
    started,
    stop_signal,
    watched,
)
from orchestrator.alarm_hooks import AlarmHook
from orchestrator.definition import Saga
from orchestrator.registry import SagaRegistry
from orchestrator.settings import OrchestratorSettings
from orchestrator.watchdog import Alarm
from orchestrator.watching import Watcher

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from messaging.settings import MessagingSettings
    from messaging.transport import Transport
    from orchestrator.purging import Housekeeping
    from orchestrator.sql.store import SqlStore

logger = logging.getLogger(__name__)


class Orchestrator:
    """The sagas that a process runs.

    Args:
        sagas: their classes.
        settings: from the environment, `.env` and `saga.toml` unless given.

    Raises:
        SagaDefinitionError: two of them have one name and version.
    """

    def __init__(self, sagas: Sequence[type[Saga[Any]]], *, settings: OrchestratorSettings | None = None) -> None:
        self.registry = SagaRegistry(sagas)
        self.settings = settings
        self._watchers: list[Watcher] = []

    def use(self, *watchers: Watcher) -> None:
        """Have it watched, by `SagaTracing` or `SagaMetrics` say; to be called before it is run."""
        self._watchers += watchers

    def on_alarm(self, call: Callable[[Alarm], object]) -> None:
        """Have a function told of each alarm, once until it is over, and again when it has grown tenfold.

        An async one is awaited in the event loop, another one is called in a thread; one call at a time, for 10 s
        at most. What it raises is logged.
        """
        self.use(AlarmHook(call))

    @property
    def watchers(self) -> tuple[Watcher, ...]:
        """Who watches it."""
        return tuple(self._watchers)


Target: TypeAlias = Orchestrator | Service


@asynccontextmanager
async def running(
    *targets: Target,
    settings: OrchestratorSettings | None = None,
    messaging: MessagingSettings | None = None,
    transport: Transport | None = None,
) -> AsyncGenerator[asyncio.Event]:
    """Run orchestrators and services in this event loop for as long as the block lasts, then drain.

    Yields an event that is set when a part has ended by itself, which is always an error; the block's
    end then raises it.
    """
    from messaging.settings import MessagingSettings

    async with AsyncExitStack() as stack:
        messaging = messaging or MessagingSettings()
        middleware = await stack.enter_async_context(measured(messaging))
        if transport is None:
            transport = await stack.enter_async_context(opened(messaging))
        parts = [await _started(target, transport, settings, messaging, middleware, stack) for target in targets]
        yield await stack.enter_async_context(watched(parts))


async def _started(
    target: Target,
    transport: Transport,
    settings: OrchestratorSettings | None,
    messaging: MessagingSettings,
    middleware: Sequence[Middleware],
    stack: AsyncExitStack,
) -> Waiting:
    """Start one part; returns what waits for its failure."""
    if isinstance(target, Service):
        return await started(target, transport, stack, limits=messaging.limits, middleware=middleware)
    own = target.settings or settings or OrchestratorSettings()
    watchers = _watchers_of(target, measured=bool(middleware))
    return await _started_orchestrator(target, transport, own, watchers, stack)


def _watchers_of(app: Orchestrator, *, measured: bool) -> tuple[Watcher, ...]:
    if not measured:
        return app.watchers
    from orchestrator.metrics import SagaMetrics

    counts = any(isinstance(watcher, SagaMetrics) for watcher in app.watchers)
    return app.watchers if counts else (*app.watchers, SagaMetrics())


async def _started_orchestrator(
    app: Orchestrator,
    transport: Transport,
    settings: OrchestratorSettings,
    watchers: Sequence[Watcher],
    stack: AsyncExitStack,
) -> Waiting:
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from messaging.outbox import Relay, RelaySettings
    from messaging.sql.outbox import SqlOutbox
    from orchestrator.service import OrchestratorService
    from orchestrator.sql.installation import installation_of
    from orchestrator.sql.store import SqlStore

    schema = settings.database_schema
    if settings.embedded:
        await asyncio.to_thread(_migrate_embedded, settings)
    store = SqlStore(settings.url, schema=schema)
    await store.open()
    stack.push_async_callback(store.close)
    _keep_dead_letters(transport, store.engine, schema)
    async with store.engine.connect() as connection:
        installation = await connection.run_sync(installation_of, schema=schema)
    service = OrchestratorService(
        app.registry,
        store,
        transport,
        settings,
        outbox=Relay(
            SqlOutbox(async_sessionmaker(store.engine), schema=schema),
            transport,
            RelaySettings(lease=settings.seconds("send_grace")),
        ),
        installation=installation.name,
        owner=str(installation.id),
        tokens=installation.tokens,
        watchers=watchers,
    )
    await service.start()
    stack.push_async_callback(service.stop)
    if settings.retention.deletes:
        work = _housekeeping(app, store, settings).run()
        stack.push_async_callback(_ended, asyncio.create_task(work, name="housekeeping"))
    return service.failed


def _housekeeping(app: Orchestrator, store: SqlStore, settings: OrchestratorSettings) -> Housekeeping:
    from orchestrator.archive import FileArchive
    from orchestrator.purging import Housekeeping, Purger

    folder, schema = settings.archive_dir, settings.database_schema
    purger = Purger(
        store,
        settings.retention,
        archive=FileArchive(Path(folder), app.registry, schema=schema) if folder else None,
        batch=settings.purge_batch,
        per_second=settings.purge_per_second,
    )
    return Housekeeping(purger, store, every=settings.seconds("purge_every"))


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _keep_dead_letters(transport: Transport, engine: AsyncEngine, schema: str | None) -> None:
    """Dead letters outlive the process: in memory nobody else keeps them."""
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from messaging.around import bare
    from messaging.memory import MemoryTransport
    from messaging.sql.dead_letters import SqlDeadLetters

    broker = bare(transport)
    if isinstance(broker, MemoryTransport):
        broker.keep_dead_letters(SqlDeadLetters(async_sessionmaker(engine), schema=schema).keep)


def _migrate_embedded(settings: OrchestratorSettings) -> None:
    """A SQLite file belongs to this process alone, so it is brought up to date without being asked to."""
    from orchestrator.sql.migrate import upgrade

    upgrade(settings.url)


async def serve(
    *targets: Target, settings: OrchestratorSettings | None = None, messaging: MessagingSettings | None = None
) -> None:
    """Run until SIGTERM or SIGINT, then drain within the bound; a second signal exits at once."""
    if not targets:
        raise SettingsError("nothing to run. Name at least one Orchestrator or Service")
    stop = stop_signal()
    async with running(*targets, settings=settings, messaging=messaging) as failed:
        collect_rarely()
        logger.info("Running %s. Stop with Ctrl-C.", ", ".join(map(_name_of, targets)))
        await either(stop, failed)
        logger.info("Stopping: finishing what is under way.")


def run(
    *targets: Target, settings: OrchestratorSettings | None = None, messaging: MessagingSettings | None = None
) -> None:
    """Run orchestrators and services in this process, with SQLite and memory unless configured otherwise.

    Returns after SIGTERM or Ctrl-C, once what was under way is finished.
    """
    show_logs()
    asyncio.run(serve(*targets, settings=settings, messaging=messaging))


def _name_of(target: Target) -> str:
    if isinstance(target, Service):
        return f"service {target.name!r}"
    return "orchestrator of " + ", ".join(sorted({pin.name for pin in target.registry.pins}))
