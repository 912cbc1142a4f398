"""`saga dlq`: dead letters, to be found and put right."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from orchestrator.cli import exits, options, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.progress import Progress
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from messaging.dead_letters import DeadLetter, KeepsDeadLetters, Outcome, Selection

T = TypeVar("T")


Queue: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--queue", "-q", metavar="NAME", help="Of this queue, without the prefix; may be repeated.", show_default=False
    ),
]
Ids: TypeAlias = Annotated[
    list[str] | None, typer.Option("--id", metavar="ID", help="Only this message; may be repeated.", show_default=False)
]
Reason: TypeAlias = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Only with this in the reason.", show_default=False)
]
Type: TypeAlias = Annotated[
    str, typer.Option("--type", metavar="NAME", help="Only messages of this type.", show_default=False)
]
OlderThan: TypeAlias = Annotated[
    timedelta | None,
    typer.Option(metavar="TIME", parser=options.parsed_duration, help="Only what died so long ago: 90s, 15m, 2h, 7d."),
]
All: TypeAlias = Annotated[bool, typer.Option("--all", metavar="", help="All of them, with nothing said to choose by.")]


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was asked for: which dead letters, where, and how to tell about them."""

    queues: Sequence[str]
    selection: Selection
    limit: int | None
    broker_url: str | None
    database_url: str | None
    app: str | None
    as_json: bool

    @property
    def anything(self) -> bool:
        """Whether anything was said that chooses."""
        from messaging.dead_letters import ALL

        return bool(self.queues or self.limit) or self.selection != ALL


def _asked(
    queue: list[str] | None,
    ids: list[str] | None,
    reason: str,
    type_name: str,
    older_than: timedelta | None,
    limit: int | None,
    broker_url: str | None,
    database_url: str | None,
    app: str | None,
    as_json: bool,
) -> Asked:
    from messaging.dead_letters import Selection

    before = None if older_than is None else datetime.now(UTC) - older_than
    selection = Selection(ids=tuple(ids or ()), reason=reason, type=type_name, died_before=before)
    return Asked(queue or (), selection, limit, broker_url, database_url, app, as_json)


@reported
def list_letters(
    *,
    queue: Queue = None,
    ids: Ids = None,
    reason: Reason = "",
    type_name: Type = "",
    older_than: OlderThan = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 50,
    broker_url: options.BrokerUrl = None,
    database_url: options.DatabaseUrl = None,
    app: options.AppTarget = None,
    as_json: options.AsJson = False,
    as_csv: options.AsCsv = False,
) -> None:
    """List dead letters, those of a queue oldest first. With --json one line of JSON each.

    Without --queue: those of the installation's own queues and of its sagas' participants.
    """
    from orchestrator.cli import letters

    asked = _asked(queue, ids, reason, type_name, older_than, limit + 1, broker_url, database_url, app, as_json)
    found = asyncio.run(_found(asked))
    lines = list(map(letters.line_as_json, found[:limit]))
    if not output.printed_for_programs(lines, as_json=as_json, as_csv=as_csv) and found:
        letters.print_table(output.console(), found[:limit])
    if not found:
        typer.echo("No dead letters match.", err=True)
    elif len(found) > limit:
        typer.echo(f"There are more than {limit}. Say --limit, or narrow it down.", err=True)


@reported
def show_letter(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The message's id, as `saga dlq list` tells it.")],
    *,
    queue: Queue = None,
    broker_url: options.BrokerUrl = None,
    database_url: options.DatabaseUrl = None,
    app: options.AppTarget = None,
    as_json: options.AsJson = False,
) -> None:
    """Show a dead letter whole: why, how it was published, properties, headers, body, traceback.

    A message that died more than once is shown as often. With --json one line of JSON each.
    """
    from orchestrator.cli import letters

    asked = _asked(queue, [letter_id], "", "", None, None, broker_url, database_url, app, as_json)
    for letter in _or_not_found(asked, asyncio.run(_found(asked))):
        if as_json:
            output.print_json(letters.as_json(letter))
        else:
            letters.print_letter(output.console(), letter)


@reported
def replay_letters(
    *,
    queue: Queue = None,
    ids: Ids = None,
    reason: Reason = "",
    type_name: Type = "",
    older_than: OlderThan = None,
    limit: options.Limit = None,
    everything: All = False,
    dry_run: options.DryRun = False,
    broker_url: options.BrokerUrl = None,
    database_url: options.DatabaseUrl = None,
    app: options.AppTarget = None,
    as_json: options.AsJson = False,
) -> None:
    """Return dead letters to the queues they died in, each once. Exits with 1 when some could not be.

    A message keeps its id, so a service with an inbox does not handle it a second time; it begins with its
    first attempt. What dies again meanwhile is left for the next run.
    """
    from messaging.dead_letters import replay

    asked = _asked(queue, ids, reason, type_name, older_than, limit, broker_url, database_url, app, as_json)
    _refuse_everything(asked, everything=everything, what="replay")
    if dry_run:
        _tell_found(asked, "would replay")
    else:
        _tell_ended(asked, asyncio.run(_each(asked, replay, "replayed")), "replayed")


@reported
def purge_letters(
    *,
    queue: Queue = None,
    ids: Ids = None,
    reason: Reason = "",
    type_name: Type = "",
    older_than: OlderThan = None,
    limit: options.Limit = None,
    everything: All = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    broker_url: options.BrokerUrl = None,
    database_url: options.DatabaseUrl = None,
    app: options.AppTarget = None,
    as_json: options.AsJson = False,
) -> None:
    """Throw dead letters away for good. Asks before, unless --yes is said; only what it told of is thrown away."""
    from messaging.dead_letters import purge

    asked = _asked(queue, ids, reason, type_name, older_than, limit, broker_url, database_url, app, as_json)
    _refuse_everything(asked, everything=everything, what="purge")
    if dry_run:
        _tell_found(asked, "would purge")
        return
    if not yes:
        found = _or_not_found(asked, asyncio.run(_found(asked)))
        if not found:
            return
        _ask(found)
        meant = replace(asked.selection, ids=tuple({letter.id for letter in found}))
        asked = replace(asked, selection=meant, queues=sorted({letter.queue for letter in found}), limit=len(found))
    _tell_ended(asked, asyncio.run(_each(asked, purge, "purged")), "purged")


def _ask(found: Sequence[DeadLetter]) -> None:
    queues = ", ".join(sorted({letter.queue for letter in found}))
    try:
        sure = typer.confirm(f"Throw away {_counted(len(found))} of {queues} for good?", err=True)
    except typer.Abort:
        raise CommandError("nothing was purged: nobody answered. Without a terminal, say --yes") from None
    if not sure:
        raise CommandError("nothing was purged")


def _refuse_everything(asked: Asked, *, everything: bool, what: str) -> None:
    if not asked.anything and not everything:
        raise CommandError(
            f"say which to {what}: --queue, --id, --reason, --type, --older-than, --limit; or --all", exits.USAGE
        )


@asynccontextmanager
async def _keeper(asked: Asked) -> AsyncGenerator[tuple[KeepsDeadLetters, list[str]]]:
    """What keeps the dead letters, and the queues to look at."""
    from orchestrator.cli.config import messaging_settings, orchestrator_settings
    from orchestrator.cli.dead_letters import opened_keeper, queues_meant

    settings = orchestrator_settings(asked.database_url, asked.app)
    async with opened_keeper(messaging_settings(asked.broker_url), settings) as keeper:
        yield keeper, await queues_meant(keeper, asked.queues, (), settings)


async def _found(asked: Asked) -> list[DeadLetter]:
    from messaging.dead_letters import found

    letters: list[DeadLetter] = []
    async with _keeper(asked) as (keeper, queues):
        for queue in queues:
            left = None if asked.limit is None else asked.limit - len(letters)
            if left == 0:
                break
            letters += await found(keeper, queue, asked.selection, limit=left)
    return letters


async def _each(asked: Asked, act: Callable[..., Awaitable[list[Outcome]]], done: str) -> list[Outcome]:
    outcomes: list[Outcome] = []
    progress = Progress(None)

    def tell(outcome: Outcome) -> None:
        outcomes.append(outcome)
        progress.clear()
        _tell(outcome, done, as_json=asked.as_json)
        progress.show(len(outcomes))

    async with _keeper(asked) as (keeper, queues):
        with progress:
            for queue in queues:
                left = None if asked.limit is None else asked.limit - len(outcomes)
                if left == 0:
                    break
                await act(keeper, queue, asked.selection, limit=left, tell=tell)
    return outcomes


def _tell(outcome: Outcome, done: str, *, as_json: bool) -> None:
    result = done if outcome.error is None else "stays"
    if as_json:
        error = None if outcome.error is None else str(outcome.error)
        output.print_json({"id": outcome.id, "queue": outcome.queue, "result": result, "error": error})
        return
    output.say(f"{result}  {outcome.queue}  {outcome.id}")
    if outcome.error is not None:
        output.say(f"  {outcome.error}", err=True)


def _tell_found(asked: Asked, would: str) -> None:
    found = _or_not_found(asked, asyncio.run(_found(asked)))
    for letter in found:
        if asked.as_json:
            output.print_json({"id": letter.id, "queue": letter.queue, "result": would, "error": None})
        else:
            output.say(f"{would}  {letter.queue}  {letter.id}")
    if found:
        typer.echo(f"{_counted(len(found))}. Nothing was done.", err=True)


def _tell_ended(asked: Asked, outcomes: list[Outcome], done: str) -> None:
    stay = sum(outcome.error is not None for outcome in _or_not_found(asked, outcomes))
    if outcomes:
        typer.echo(f"{done}: {len(outcomes) - stay}, stay: {stay}", err=True)
    if stay:
        raise typer.Exit(exits.FAILED)


def _or_not_found(asked: Asked, found: list[T]) -> list[T]:
    """What was found; an id that is not there is an error, a filter that nothing passes is none."""
    if not found and asked.selection.ids:
        wanted = ", ".join(sorted(asked.selection.ids))
        raise CommandError(f"no dead letter has the id {wanted}. Find it with: saga dlq list", exits.NOT_FOUND)
    if not found:
        typer.echo("No dead letters match.", err=True)
    return found


def _counted(number: int) -> str:
    return f"{number} dead letter{'s' * (number != 1)}"
