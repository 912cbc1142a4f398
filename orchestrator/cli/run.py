"""`saga run`: orchestrators and services in this process."""

from __future__ import annotations

import asyncio
import logging
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import options
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from messaging.service import Service
    from messaging.settings import MessagingSettings
    from orchestrator.app import Orchestrator, Target
    from orchestrator.settings import OrchestratorSettings


class Level(StrEnum):
    """From which level on logs are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Format(StrEnum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


@reported
def run(
    targets: Annotated[
        list[str], typer.Argument(metavar="TARGET...", help="MODULE:ATTRIBUTE of an Orchestrator or a Service.")
    ],
    *,
    reload: Annotated[
        bool, typer.Option("--reload", metavar="", help="Start again when a .py file below here changes.")
    ] = False,
    app_dir: options.AppDir = ".",
    dashboard: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Answer HTTP there, as saga dashboard does.", show_default=False),
    ] = None,
    log_level: Annotated[Level, typer.Option(help="From which level on logs are shown.")] = Level.INFO,
    log_format: Annotated[Format, typer.Option(help="How a line of the log is written.")] = Format.TEXT,
    database_url: options.DatabaseUrl = None,
    broker_url: options.BrokerUrl = None,
) -> None:
    """Run orchestrators and services in this process, until Ctrl-C or SIGTERM.

    Several targets share the process. As many processes as you like may run the same target, where the
    database is PostgreSQL and the broker RabbitMQ or Redis.
    """
    if reload:
        from orchestrator.cli.reload import run_reloading

        raise typer.Exit(run_reloading(sys.argv[1:], app_dir))
    from messaging.errors import TopologyMissing
    from orchestrator.cli import logs

    parts = _loaded(targets, app_dir)
    logs.log_to_stderr(log_level.value, log_format.value)
    try:
        _serve(parts, database_url, broker_url, dashboard)
    except TopologyMissing as missing:
        raise CommandError(str(missing).replace("TARGET...", " ".join(targets))) from missing


def _loaded(targets: list[str], app_dir: str) -> dict[str, Target]:
    from orchestrator.cli.targets import loaded

    return {target: loaded(target, app_dir=app_dir) for target in targets}


def _serve(parts: dict[str, Target], database_url: str | None, broker_url: str | None, dashboard: str | None) -> None:
    from orchestrator.app import Orchestrator
    from orchestrator.cli.config import messaging_settings, orchestrator_settings

    settings, messaging = orchestrator_settings(database_url), messaging_settings(broker_url)
    for part in parts.values():
        if isinstance(part, Orchestrator) and part.settings is not None and database_url is not None:
            part.settings = part.settings.model_copy(update={"database_url": settings.database_url})
    for target, part in parts.items():
        logging.getLogger("saga").info("%s", described(target, part, settings, messaging))
    asyncio.run(_serve_reachable(list(parts.values()), settings, messaging, dashboard))


async def _serve_reachable(
    parts: list[Target], settings: OrchestratorSettings, messaging: MessagingSettings, dashboard: str | None
) -> None:
    """Serve, once each database has answered: a driver's own error would not say which one did not."""
    from orchestrator.app import Orchestrator, serve
    from orchestrator.cli.dashboard import beside
    from orchestrator.cli.database import opened

    for part in parts:
        own = part.settings or settings if isinstance(part, Orchestrator) else None
        if own is not None and not own.embedded:
            async with opened(own):
                pass
    app = next((part for part in parts if isinstance(part, Orchestrator)), None)
    async with beside(dashboard, settings, messaging, app):
        await serve(*parts, settings=settings, messaging=messaging)


def described(target: str, part: Target, settings: OrchestratorSettings, messaging: MessagingSettings) -> str:
    """What a target is and where it works, with passwords masked."""
    from orchestrator.app import Orchestrator

    if not isinstance(part, Orchestrator):
        database = _database_of(part)
        return f"{target}: service {part.name!r} on {messaging.shown_url}, {database}"
    names = ", ".join(_names(part))
    return f"{target}: sagas {names} on {messaging.shown_url}, kept in {(part.settings or settings).shown_url}"


def _names(app: Orchestrator) -> list[str]:
    return sorted({pin.name for pin in app.registry.pins})


def _database_of(service: Service) -> str:
    bind: Any = service.sessions.kw.get("bind") if service.sessions is not None else None
    if bind is None:
        return "no database known here" if service.sessions is not None else "without a database"
    return f"database {bind.url.render_as_string(hide_password=True)}"
