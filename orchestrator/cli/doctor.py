"""`saga doctor`: is everything there that sagas need, and does anything wait for a person?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from messaging.settings import MessagingSettings
    from orchestrator.cli.findings import Finding
    from orchestrator.settings import OrchestratorSettings

_COLOURS: Final = {"ok": "green", "warn": "yellow", "fail": "bold red"}


@reported
def doctor(
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET...]", help="MODULE:ATTRIBUTE of services whose queues are looked at as well."),
    ] = None,
    *,
    app: options.AppTarget = None,
    database_url: options.DatabaseUrl = None,
    broker_url: options.BrokerUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Check database, schema, clock, broker, settings and packages, count what waits, tell which alarms are up.

    In the installation's queues, and in those of its participants, where --app names the sagas, it counts consumers
    and dead letters.

    Exits with 1 when something is wrong, with 5 when the database or the broker cannot be reached.
    """
    from orchestrator.cli import findings
    from orchestrator.cli.config import messaging_settings, orchestrator_settings

    settings, messaging = orchestrator_settings(database_url, app), messaging_settings(broker_url)
    found = [
        *findings.packages(),
        *findings.settings_read(),
        *asyncio.run(_services(settings, messaging, targets or ())),
    ]
    if as_json:
        output.print_json(found)
    else:
        _print(found)
    if any(one.unreachable for one in found):
        raise typer.Exit(exits.UNREACHABLE)
    if any(one.level is findings.Level.FAIL for one in found):
        raise typer.Exit(exits.FAILED)


async def _services(
    settings: OrchestratorSettings, messaging: MessagingSettings, targets: Sequence[str]
) -> list[Finding]:
    from orchestrator.cli import findings, queue_findings
    from orchestrator.cli.alarms import alarms

    of_database, raised, of_broker, of_queues, joined = await asyncio.gather(
        findings.database(settings),
        alarms(settings),
        findings.broker(messaging),
        queue_findings.queues(messaging, settings, targets),
        queue_findings.coalescing(messaging, settings, targets),
    )
    return [*of_database, *raised, of_broker, *of_queues, *joined]


def _print(found: list[Finding]) -> None:
    from rich.markup import escape

    console = output.console()
    for one in found:
        colour = _COLOURS[one.level.value]
        console.print(f"[{colour}]{one.level.value:<4}[/] {one.subject:<9} {escape(one.text)}", soft_wrap=True)
        if one.remedy and one.level.value != "ok":
            console.print(f"{'':<14} → {escape(one.remedy)}", soft_wrap=True)
