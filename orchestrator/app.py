"""The composition root: which store, which transport, which parts make a running process.

app = Orchestrator(sagas=[CreateOrderSaga])
run(app, orders, customers, warehouse)      # one process; or `saga run shop.main:app`
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias

from messaging.errors import SettingsError
from messaging.service import Service
from messaging.serving import Waiting, either, opened, show_logs, started, stop_signal, watched
from orchestrator.definition import Saga
from orchestrator.registry import SagaRegistry
from orchestrator.settings import OrchestratorSettings

if TYPE_CHECKING:
    from messaging.settings import MessagingSettings
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
    async with AsyncExitStack() as stack:
        if transport is None:
            transport = await stack.enter_async_context(opened(messaging))
        parts = [await _started(target, transport, settings, stack) for target in targets]
        yield await stack.enter_async_context(watched(parts))


async def _started(
    target: Target, transport: Transport, settings: OrchestratorSettings | None, stack: AsyncExitStack
) -> Waiting:
    """Start one part; returns what waits for its failure."""
    if isinstance(target, Service):
        return await started(target, transport, stack)
    return await _started_orchestrator(target, transport, target.settings or settings or OrchestratorSettings(), stack)


async def _started_orchestrator(
    app: Orchestrator, transport: Transport, settings: OrchestratorSettings, stack: AsyncExitStack
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
    return service.failed


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
