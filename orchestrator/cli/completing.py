"""`saga complete`: answer a command by the reply token that its participant handed out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.acting import who
from orchestrator.cli.exits import CommandError
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from messaging.inbox import Answer
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.status import SagaRow


@reported
def complete(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="What the participant handed out.", show_default=False)],
    *,
    data: Annotated[
        str, typer.Option("--data", "-d", metavar="JSON", help="The fields of the reply, or failure.")
    ] = "{}",
    failure: Annotated[
        str, typer.Option("--failure", metavar="CODE", help="Refuse, with this error code.", show_default=False)
    ] = "",
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="For the history.", show_default=False)
    ] = "",
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Answer a command whose participant said `accepted`, with the reply token it handed out.

    Refused, with why, when the command is answered already or its saga does not await it any more (exit code 4).
    """
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.describe import how_it_stands

    row = asyncio.run(_completed(orchestrator_settings(database_url), token, _answer(data, failure), reason))
    if as_json:
        output.print_json(row)
    else:
        output.say(f"Accepted: {how_it_stands(row)}")


def _answer(data: str, failure: str) -> Answer:
    from messaging import envelope as wire
    from messaging.codec import DEFAULT_LIMITS, check_json
    from messaging.errors import DecodeError
    from messaging.inbox import Answer

    body = data.encode()
    try:
        check_json(body, DEFAULT_LIMITS)
    except DecodeError as error:
        raise typer.BadParameter(f"--data is no JSON: {error.problem}") from error
    return Answer(wire.FAILURE, failure, body=body) if failure else Answer(wire.SUCCESS, body=body)


async def _completed(settings: OrchestratorSettings, token: str, answer: Answer, reason: str) -> SagaRow:
    from orchestrator.cli.database import opened
    from orchestrator.client import SagaClient

    async with opened(settings) as engine:
        client = SagaClient(engine, schema=settings.database_schema)
        try:
            saga_id = await client.complete(token, answer, reason=reason, by=who())
        except TimeoutError as error:
            raise CommandError(str(error), exits.UNREACHABLE) from error
        return await client.get(saga_id)
