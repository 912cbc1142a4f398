"""What operators may ask for, `saga cancel` and the like: ask the engine, and wait for its answer."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, TypeAlias
from uuid import UUID

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.client import SagaClient
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.status import SagaRow

Step: TypeAlias = Annotated[
    str, typer.Option("--step", "-s", metavar="STEP", help="Which step, if you want to be sure.", show_default=False)
]


@reported
def cancel(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a saga undone. Refused once its pivot is out or passed, and after its end (exit code 4)."""

    async def ask(client: SagaClient) -> None:
        await client.cancel(saga_id, reason=reason, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def retry(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    step: Step = "",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a blocked saga try again. Refused when it is not blocked, or at another step (exit code 4)."""

    async def ask(client: SagaClient) -> None:
        await client.retry(saga_id, reason=reason, step=step, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def pause(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a saga stand still: nothing is sent, what arrives is kept, time does not count, until it is resumed."""

    async def ask(client: SagaClient) -> None:
        await client.pause(saga_id, reason=reason, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def resume(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a paused saga go on, with what arrived meanwhile first. Refused when it is not paused (exit code 4)."""

    async def ask(client: SagaClient) -> None:
        await client.resume(saga_id, reason=reason, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def skip(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    step: Step = "",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a blocked saga go on without the step it is blocked at.

    A skipped pivot counts as passed. Without an undo the saga ends as compensated_with_exceptions.
    """

    async def ask(client: SagaClient) -> None:
        await client.skip(saga_id, reason=reason, step=step, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def resolve(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    step: Step = "",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Tell a blocked saga that you have done by hand what the step it is blocked at, or its undo, was to do."""

    async def ask(client: SagaClient) -> None:
        await client.resolve(saga_id, reason=reason, step=step, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def compensate(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Have a saga turn back, blocked or not. Refused once its pivot is out or passed (exit code 4)."""

    async def ask(client: SagaClient) -> None:
        await client.compensate(saga_id, reason=reason, by=_who())

    _act(saga_id, ask, database_url, as_json)


@reported
def abandon(
    saga_id: options.SagaId,
    *,
    reason: options.Reason,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Give a saga up as it stands: nothing of it is sent, awaited or undone any more. There is no way back."""

    async def ask(client: SagaClient) -> None:
        await client.abandon(saga_id, reason=reason, by=_who())

    _act(saga_id, ask, database_url, as_json)


def _act(saga_id: UUID, ask: Callable[[SagaClient], Awaitable[None]], database_url: str | None, as_json: bool) -> None:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.describe import how_it_stands

    row = asyncio.run(_asked(orchestrator_settings(database_url), saga_id, ask))
    if as_json:
        output.print_json(row)
    else:
        typer.echo(f"Accepted: {how_it_stands(row)}")


async def _asked(
    settings: OrchestratorSettings, saga_id: UUID, ask: Callable[[SagaClient], Awaitable[None]]
) -> SagaRow:
    from orchestrator.cli.database import opened
    from orchestrator.client import SagaClient

    async with opened(settings) as engine:
        client = SagaClient(engine, schema=settings.database_schema)
        try:
            await ask(client)
        except TimeoutError as error:
            raise CommandError(str(error), exits.UNREACHABLE) from error
        return await client.get(saga_id)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in containers
        return ""
