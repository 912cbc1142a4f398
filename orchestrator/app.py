"""The composition root: which store, which transport, which parts make a running process.

app = Orchestrator(sagas=[CreateOrderSaga])
run(app, orders, customers, warehouse)      # one process; or `saga run shop.main:app`
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from messaging.errors import SettingsError
from messaging.service import Service
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from
from orchestrator.definition import Saga
from orchestrator.registry import SagaRegistry
from orchestrator.settings import OrchestratorSettings

if TYPE_CHECKING:
    from messaging.transport import Transport

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
    messaging = messaging or MessagingSettings()
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = transport_from(messaging, app_id="sagasmith")
            await transport.open()
            stack.push_async_callback(transport.close)
        failed = asyncio.Event()
        watchers: list[asyncio.Task[None]] = []
        for target in targets:
            part = await _started(target, transport, settings, stack)
            watcher = asyncio.create_task(part)
            watcher.add_done_callback(lambda _: failed.set())
            watchers.append(watcher)
        yield failed
        ended = [watcher for watcher in watchers if watcher.done()]
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        for watcher in ended:
            watcher.result()


async def _started(
    target: Target, transport: Transport, settings: OrchestratorSettings | None, stack: AsyncExitStack
) -> Any:
    """Start one part; returns what waits for its failure."""
    if isinstance(target, Service):
        from messaging.consumer import ServiceRunner

        runner = ServiceRunner(target, transport)
        await runner.start()
        stack.push_async_callback(runner.stop)
        return runner.wait()
    return await _started_orchestrator(target, transport, target.settings or settings or OrchestratorSettings(), stack)


async def _started_orchestrator(
    app: Orchestrator, transport: Transport, settings: OrchestratorSettings, stack: AsyncExitStack
) -> Any:
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
    )
    await service.start()
    stack.push_async_callback(service.stop)
    return service.failed()


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
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop_or_exit, number, stop)
    async with running(*targets, settings=settings, messaging=messaging) as failed:
        logger.info("Running %s. Stop with Ctrl-C.", ", ".join(map(_name_of, targets)))
        waiting = [asyncio.create_task(event.wait()) for event in (stop, failed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        logger.info("Stopping: finishing what is under way.")


def run(
    *targets: Target, settings: OrchestratorSettings | None = None, messaging: MessagingSettings | None = None
) -> None:
    """Run orchestrators and services in this process, with SQLite and memory unless configured otherwise.

    Returns after SIGTERM or Ctrl-C, once what was under way is finished.
    """
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        quieten_libraries()
    asyncio.run(serve(*targets, settings=settings, messaging=messaging))


def quieten_libraries() -> None:
    """Keep libraries from telling at length what our own log lines tell in one."""
    for chatty in ("alembic", "aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.ERROR)


def _stop_or_exit(number: int, stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()


def _name_of(target: Target) -> str:
    if isinstance(target, Service):
        return f"service {target.name!r}"
    return "orchestrator of " + ", ".join(sorted({pin.name for pin in target.registry.pins}))
