"""`saga start`: begin a saga from a shell."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from pydantic import BaseModel

    from orchestrator.definition import Saga
    from orchestrator.registry import SagaRegistry
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.starting import StartedSaga
    from orchestrator.status import SagaRow

_FOREVER = timedelta(days=365)


@reported
def start(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The saga's name, such as create-order.")],
    *,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="JSON|@FILE|-", help="Its first state; - reads standard input.")
    ] = "{}",
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="Its business key: one saga at most has it.", show_default=False)
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", "-w", metavar="", help="Wait until it has ended.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="With --wait: how long.", show_default=False)
    ] = None,
    app: options.AppTarget = None,
    app_dir: options.AppDir = ".",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Start a saga and print its id. With --wait, exit with 6 unless it completes."""
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.targets import loaded_app

    settings = orchestrator_settings(database_url, app)
    saga = named(loaded_app(settings.app, app_dir=app_dir).registry, name)
    state = parsed_state(saga, _text_of(data))
    patience = (_FOREVER if timeout is None else timedelta(seconds=timeout)) if wait else None
    asyncio.run(_start(settings, saga, state, key, patience, as_json))


def named(registry: SagaRegistry, name: str) -> type[Saga[Any]]:
    """The latest version of a saga.

    Raises:
        CommandError: none has this name; the text says which there are.
    """
    from orchestrator.errors import UnknownDefinition

    try:
        return registry.named(name)
    except UnknownDefinition as error:
        known = ", ".join(sorted({pin.name for pin in registry.pins}))
        raise CommandError(f"no saga {name!r} is defined there. Known: {known}", exits.NOT_FOUND) from error


def _text_of(data: str) -> str:
    if data == "-":
        return sys.stdin.read()
    if not data.startswith("@"):
        return data
    try:
        return Path(data[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{data[1:]} cannot be read: {error}", exits.USAGE) from error


def parsed_state(saga: type[Saga[Any]], text: str) -> BaseModel:
    """Read a saga's first state.

    Raises:
        CommandError: it does not fit; the text has a line for each field that is wrong.
    """
    from pydantic import ValidationError

    try:
        return saga.state_type.model_validate_json(text)
    except ValidationError as error:
        lines = [
            f"  {'.'.join(map(str, problem['loc'])) or '--data'}: {problem['msg']}"
            for problem in error.errors(include_url=False)
        ]
        heading = f"--data is no {saga.state_type.__name__}, the state of {saga.name}:"
        raise CommandError("\n".join([heading, *lines]), exits.USAGE) from error


async def _start(
    settings: OrchestratorSettings,
    saga: type[Saga[Any]],
    state: BaseModel,
    key: str | None,
    patience: timedelta | None,
    as_json: bool,
) -> None:
    from orchestrator.cli.database import opened
    from orchestrator.client import SagaClient, SagaNotEnded

    async with opened(settings) as engine:
        client = SagaClient(engine, schema=settings.database_schema)
        started = await client.start(saga, state, key=key)
        if patience is None:
            _tell_started(started, key, as_json)
            return
        if not as_json:
            _tell_started(started, key, as_json)
        try:
            row = await client.wait(started.id, timeout=patience)
        except SagaNotEnded as error:
            raise CommandError(str(error), exits.NOT_COMPLETED) from error
    _tell_end(row, as_json)


def _tell_started(started: StartedSaga, key: str | None, as_json: bool) -> None:
    if as_json:
        output.print_json({"saga_id": started.id, "created": started.created})
        return
    typer.echo(str(started.id))
    if not started.created:
        output.say(f"There was a saga with the key {key!r} already; nothing was started.", err=True)


def _tell_end(row: SagaRow, as_json: bool) -> None:
    from orchestrator.cli.describe import how_it_stands
    from orchestrator.instance import SagaStatus

    if as_json:
        output.print_json(row)
    else:
        output.say(how_it_stands(row))
    if row.status is not SagaStatus.COMPLETED:
        raise typer.Exit(exits.NOT_COMPLETED)
