"""`saga topology`: what orchestrators and services need on RabbitMQ, without running them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from messaging.rabbitmq.definitions import Part
    from messaging.rabbitmq.inspection import Compared
    from messaging.transport import QueueSpec
    from orchestrator.app import Orchestrator, Target

Targets: TypeAlias = Annotated[
    list[str], typer.Argument(metavar="TARGET...", help="MODULE:ATTRIBUTE of an Orchestrator or a Service.")
]
_COLOURS: Final = {"same": "green", "missing": "bold red", "different": "bold red", "unknown": "yellow"}


@reported
def show(
    targets: Targets,
    *,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Print the queues, exchanges and bindings that targets declare. The broker is not asked.

    The database is, for an orchestrator: its installation's name is part of its queues' names.
    """
    from messaging.wiring import layout_from
    from orchestrator.cli.config import messaging_settings

    layout = layout_from(messaging_settings())
    specs = asyncio.run(_specs(targets, app_dir, database_url))
    parts = list({str(part): part for spec in specs for part in layout.parts(spec)}.values())
    if as_json:
        output.print_json([_as_json(part) for part in parts])
        return
    _print_rows([(kind, name, how) for kind, name, how in map(_described, parts)], "part", "name", "how")


@reported
def apply(
    targets: Targets,
    *,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    broker_url: options.BrokerUrl = None,
) -> None:
    """Declare all that targets need, as this user, without running them. Safe to repeat.

    For brokers on which services may not declare: run them with MESSAGING_TOPOLOGY=passive, and this before, with that
    setting too, as a user who may configure.
    """
    parts = asyncio.run(_applied(targets, app_dir, database_url, broker_url))
    counted = {kind: sum(_described(part)[0] == kind for part in parts) for kind in ("queue", "exchange", "binding")}
    typer.echo("Declared " + ", ".join(f"{count} {kind}{'s' * (count != 1)}" for kind, count in counted.items()) + ".")


@reported
def check(
    targets: Targets,
    *,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    broker_url: options.BrokerUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare what targets need with what the broker has, and change nothing.

    Exits with 1 when something is missing or is defined otherwise.
    """
    compared = asyncio.run(_compared(targets, app_dir, database_url, broker_url))
    if as_json:
        output.print_json([_compared_as_json(one) for one in compared])
    else:
        _print_compared(compared)
    if any(one.state in ("missing", "different") for one in compared):
        raise typer.Exit(exits.FAILED)


async def _applied(targets: list[str], app_dir: str, database_url: str | None, broker_url: str | None) -> list[Part]:
    from messaging.wiring import inspection_from
    from orchestrator.cli.config import messaging_settings

    inspection = inspection_from(messaging_settings(broker_url), app_id="saga topology")
    specs = await _specs(targets, app_dir, database_url)
    async with inspection:
        return await inspection.apply(specs)


async def _compared(
    targets: list[str], app_dir: str, database_url: str | None, broker_url: str | None
) -> list[Compared]:
    from messaging.wiring import inspection_from
    from orchestrator.cli.config import messaging_settings

    inspection = inspection_from(messaging_settings(broker_url), app_id="saga topology")
    specs = await _specs(targets, app_dir, database_url)
    async with inspection:
        return await inspection.compare(specs)


async def _specs(targets: list[str], app_dir: str, database_url: str | None) -> list[QueueSpec]:
    from orchestrator.cli.targets import loaded

    found: list[QueueSpec] = []
    for target in targets:
        found += await _specs_of(loaded(target, app_dir=app_dir), database_url)
    return found


async def _specs_of(target: Target, database_url: str | None) -> Sequence[QueueSpec]:
    from messaging.service import Service

    if isinstance(target, Service):
        return [target.queue_spec()]
    return await _orchestrators_specs(target, database_url)


async def _orchestrators_specs(app: Orchestrator, database_url: str | None) -> Sequence[QueueSpec]:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.service import Queues
    from orchestrator.sql.installation import installation_of

    settings = orchestrator_settings(database_url)
    if app.settings is not None and database_url is None:
        settings = app.settings
    async with opened(settings) as engine, engine.connect() as connection:
        installation = await connection.run_sync(installation_of, schema=settings.database_schema)
    return Queues(installation.name).specs(app.registry, owner=str(installation.id))


def _described(part: Part) -> tuple[str, str, str]:
    """What it is, its name, and how it is defined."""
    from messaging.rabbitmq.definitions import Bound, Exchange

    if isinstance(part, Bound):
        return "binding", part.queue, f"to {part.exchange} by {part.routing_key}"
    arguments = [f"{name}={_shown(value)}" for name, value in part.arguments.items()]
    if isinstance(part, Exchange):
        return "exchange", part.name, ", ".join([part.type, *arguments])
    return "queue", part.name, ", ".join(arguments)


def _shown(value: object) -> str:
    return '""' if value == "" else str(value)


def _as_json(part: Part) -> dict[str, Any]:
    return {"part": _described(part)[0], **output.plain(part)}


def _compared_as_json(one: Compared) -> dict[str, Any]:
    return {**_as_json(one.part), "state": one.state, "note": one.note, "differences": output.plain(one.differences)}


def _print_rows(rows: Sequence[tuple[str, str, str]], *headings: str) -> None:
    console = output.console()
    table = output.table(*headings, terminal=console.is_terminal)
    for row in rows:
        table.add_row(*row)
    output.print_table(console, table)


def _print_compared(compared: Sequence[Compared]) -> None:
    from rich.markup import escape

    from messaging.rabbitmq.mismatch import side_by_side

    console = output.console()
    for one in compared:
        colour = _COLOURS[one.state]
        console.print(f"[{colour}]{one.state:<9}[/] {escape(str(one.part))}", soft_wrap=True)
        if one.differences:
            console.print(escape(side_by_side(one.differences)), soft_wrap=True)
        if one.note:
            console.print(f"{'':<9} {escape(one.note)}", soft_wrap=True)
