"""`saga relay`: the outbox of a database sent by a process of its own."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import exits, options
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported
from orchestrator.cli.run import Format, Level

if TYPE_CHECKING:
    from messaging.outbox import RelaySettings
    from messaging.settings import MessagingSettings
    from orchestrator.settings import OrchestratorSettings

logger = logging.getLogger("saga")


@reported
def relay(
    *,
    database_url: Annotated[
        str | None,
        typer.Option(
            "--database-url",
            metavar="URL",
            help="Where the outbox is; else ORCHESTRATOR_DATABASE_URL, .env, saga.toml.",
            show_default=False,
        ),
    ] = None,
    broker_url: options.BrokerUrl = None,
    poll: Annotated[float, typer.Option(min=0.01, metavar="SECONDS", help="How often to look.")] = 0.2,
    lease: Annotated[
        float, typer.Option(min=0.5, metavar="SECONDS", help="After so long another relay sends what this one took.")
    ] = 30.0,
    log_level: Annotated[Level, typer.Option(help="From which level on logs are shown.")] = Level.INFO,
    log_format: Annotated[Format, typer.Option(help="How a line of the log is written.")] = Format.TEXT,
) -> None:
    """Send what is written to the outbox of a database, until Ctrl-C or SIGTERM.

    For whoever writes and runs no service: Django, Flask, scripts. As many as you like may run beside each other
    and beside services; whichever dies, another sends what it had taken. Messages of one ordering key leave in order.
    With MESSAGING_METRICS_PORT it answers Prometheus, with how old the oldest message is.
    """
    from messaging.outbox import RelaySettings
    from orchestrator.cli import logs
    from orchestrator.cli.config import messaging_settings, orchestrator_settings

    settings, messaging = orchestrator_settings(database_url), messaging_settings(broker_url)
    if messaging.in_memory:
        raise CommandError(
            "a relay needs a broker that others reach, and memory:// is this process alone. "
            "Say --broker-url amqp://..., or set MESSAGING_BROKER_URL",
            exits.USAGE,
        )
    logs.log_to_stderr(log_level.value, log_format.value)
    work = RelaySettings(poll=timedelta(seconds=poll), lease=timedelta(seconds=lease))
    asyncio.run(_relay(settings, messaging, work))


async def _relay(settings: OrchestratorSettings, messaging: MessagingSettings, work: RelaySettings) -> None:
    from sqlalchemy.ext.asyncio import async_sessionmaker

    from messaging.outbox import Relay, relaying
    from messaging.outbox_age import show_age
    from messaging.serving import measured, stop_signal
    from messaging.serving import opened as connected
    from messaging.sql import SqlOutbox
    from orchestrator.cli.database import opened

    stop = stop_signal()
    async with (
        measured(messaging) as meters,
        opened(settings, only="messaging") as engine,
        connected(messaging) as transport,
    ):
        rows = SqlOutbox(async_sessionmaker(engine), schema=settings.database_schema)
        logger.info("Relaying from %s to %s. Stop with Ctrl-C.", settings.shown_url, messaging.shown_url)
        async with relaying(Relay(rows, transport, work)):
            measuring = asyncio.create_task(show_age("saga relay", rows, meters))
            await stop.wait()
            measuring.cancel()
            logger.info("Stopping: finishing what is under way.")
