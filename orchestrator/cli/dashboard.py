"""`saga dashboard`: sagas in a browser, and over HTTP."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Final, TypeAlias

import typer

from orchestrator.cli import exits, options
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported
from orchestrator.cli.run import Format, Level

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from messaging.dead_letters import KeepsDeadLetters
    from messaging.settings import MessagingSettings
    from orchestrator.app import Orchestrator
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.web.settings import DashboardSettings
    from orchestrator.web.web import Letters

logger = logging.getLogger("saga")

CONNECTIONS: Final = 5
BROKER_PATIENCE_SECONDS: Final = 2.0
"""How long a page waits for a broker to be connected to."""
Listen: TypeAlias = Annotated[
    str | None,
    typer.Option("--listen", metavar="HOST:PORT", help="Where to answer; else DASHBOARD_LISTEN.", show_default=False),
]


@reported
def dashboard(
    *,
    listen: Listen = None,
    read_only: Annotated[bool, typer.Option("--read-only", metavar="", help="Nobody acts here.")] = False,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    log_level: Annotated[Level, typer.Option(help="From which level on logs are shown.")] = Level.INFO,
    log_format: Annotated[Format, typer.Option(help="How a line of the log is written.")] = Format.TEXT,
    database_url: options.DatabaseUrl = None,
    broker_url: options.BrokerUrl = None,
) -> None:
    """Answer HTTP with a dashboard and an API of sagas, until Ctrl-C or SIGTERM. No engine runs here.

    It needs the database alone. With --app it draws steps, and shows state and messages without what definitions mark
    as secret. Only this machine is answered, unless DASHBOARD_TOKEN or DASHBOARD_PROXY_USER_HEADER is set.
    """
    from orchestrator.cli import logs
    from orchestrator.cli.config import dashboard_settings, messaging_settings, orchestrator_settings
    from orchestrator.cli.targets import loaded_app

    settings, messaging = orchestrator_settings(database_url, app), messaging_settings(broker_url)
    own = dashboard_settings(listen, read_only=read_only)
    own.check()
    known = loaded_app(settings.app, app_dir=app_dir) if settings.app else None
    logs.log_to_stderr(log_level.value, log_format.value)
    asyncio.run(_serve(settings, messaging, own, known))


async def _serve(
    settings: OrchestratorSettings, messaging: MessagingSettings, own: DashboardSettings, app: Orchestrator | None
) -> None:
    from messaging.serving import stop_signal
    from orchestrator.cli.database import opened

    stop = stop_signal()
    async with (
        opened(settings, connections=CONNECTIONS) as engine,
        _answering(engine, settings, messaging, own, app),
    ):
        await stop.wait()


@asynccontextmanager
async def beside(
    listen: str | None, settings: OrchestratorSettings, messaging: MessagingSettings, app: Orchestrator | None
) -> AsyncGenerator[None]:
    """Answer for as long as the block lasts, beside an orchestrator; nothing, where it is not said where.

    Raises:
        CommandError: it is said, and there is no orchestrator.
        SettingsError: it cannot be listened there.
    """
    from orchestrator.cli.config import dashboard_settings
    from orchestrator.cli.database import engine_of
    from orchestrator.sql.migrate import upgrade

    async with AsyncExitStack() as stack:
        if listen is not None:
            if app is None:
                raise CommandError("--dashboard shows sagas, and no Orchestrator is among the targets", exits.USAGE)
            own, settings = dashboard_settings(listen), app.settings or settings
            if settings.embedded:  # as the orchestrator will in a moment
                await asyncio.to_thread(upgrade, settings.url)
            engine = engine_of(settings, connections=CONNECTIONS)
            stack.push_async_callback(engine.dispose)
            await stack.enter_async_context(_answering(engine, settings, messaging, own, app))
        yield


@asynccontextmanager
async def _answering(
    engine: AsyncEngine,
    settings: OrchestratorSettings,
    messaging: MessagingSettings,
    own: DashboardSettings,
    app: Orchestrator | None,
) -> AsyncGenerator[None]:
    try:
        from orchestrator.web import create_app
        from orchestrator.web.serving import served
    except ImportError as missing:
        raise CommandError(str(missing)) from missing
    letters = _letters(messaging, settings)
    made = create_app(engine, schema=settings.database_schema, settings=own, app=app, letters=letters)
    async with served(made, own) as address:
        logger.info("The dashboard of %s is at %s", settings.shown_url, address)
        yield


def _letters(messaging: MessagingSettings, settings: OrchestratorSettings) -> Letters:
    """Opens what keeps dead letters, each time somebody looks, with the queues that are known."""
    from messaging.errors import TransportError
    from messaging.sql.dead_letters import SqlDeadLetters
    from orchestrator.cli.dead_letters import known_queues, opened_keeper

    @asynccontextmanager
    async def letters() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
        try:
            async with opened_keeper(messaging, settings, patience_seconds=BROKER_PATIENCE_SECONDS) as keeper:
                lying = await keeper.queues() if isinstance(keeper, SqlDeadLetters) else ()
                yield keeper, list(dict.fromkeys([*await known_queues(settings), *lying]))
        except CommandError as error:
            raise TransportError(error.text) from error

    return letters
