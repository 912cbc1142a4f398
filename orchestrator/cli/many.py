"""An action of many sagas: which they are, asked about before, told line by line, with progress on stderr."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Container, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

import typer

from orchestrator.cli import exits, output
from orchestrator.cli.exits import CommandError
from orchestrator.cli.progress import Progress
from orchestrator.instance import SagaStatus

if TYPE_CHECKING:
    from orchestrator.bulk import ActionWord, BulkResult
    from orchestrator.client import SagaClient
    from orchestrator.status import SagaFilter

_BY_FILTER: Final = "--saga, --status, --key, --at, --error, --where, --older-than, --limit"
_CODES: Final = {
    "not-taken": exits.UNREACHABLE,
    "not-asked": exits.UNREACHABLE,
    "refused": exits.REFUSED,
    "unknown": exits.NOT_FOUND,
}
"""The worst first."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked, why, and by whom."""

    word: ActionWord
    reason: str
    step: str
    by: str

    def given_to(self, sagas: SagaClient, ids: Sequence[UUID], *, per_second: float = 1.0) -> AsyncIterator[BulkResult]:
        """Ask each of these."""
        return sagas.bulk(self.word, ids, reason=self.reason, step=self.step, by=self.by, per_second=per_second)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which sagas are meant, where no ids are given."""

    saga: str | None = None
    status: SagaStatus | None = None
    key: str | None = None
    at: str | None = None
    error: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    older_than: timedelta | None = None
    limit: int | None = None
    everything: bool = False

    @property
    def anything(self) -> bool:
        """Whether anything was said that chooses."""
        return self != Choice()

    def among(self, word: ActionWord) -> SagaFilter:
        """Those of them that the action makes sense for: blocked, paused or not ended, unless a status is named."""
        from orchestrator.status import SagaFilter

        status = self.status
        if status is None and word in ("retry", "skip", "resolve"):
            status = SagaStatus.BLOCKED
        return SagaFilter(
            saga=self.saga,
            status=status,
            key=self.key,
            step=self.at,
            error=self.error,
            where=dict(self.where),
            ended=False if status is None else None,
            paused={"pause": False, "resume": True}.get(word),
            started_before=None if self.older_than is None else datetime.now(UTC) - self.older_than,
        )


@dataclass(frozen=True, slots=True)
class Manner:
    """How it is done and told."""

    per_second: float
    dry_run: bool
    yes: bool
    as_json: bool


def refuse_unclear(word: str, ids: Sequence[UUID], choice: Choice) -> None:
    """Refuse what names no saga, or names some in two ways.

    Raises:
        CommandError: it does.
    """
    if ids and choice.anything:
        raise CommandError(f"give ids, or choose with {_BY_FILTER}, not both", exits.USAGE)
    if not ids and not choice.anything:
        raise CommandError(f"say which to {word}: an ID, {_BY_FILTER}; or --all", exits.USAGE)


@asynccontextmanager
async def client(database_url: str | None) -> AsyncGenerator[SagaClient]:
    """A client on the configured database."""
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.client import SagaClient

    settings = orchestrator_settings(database_url)
    async with opened(settings) as engine:
        yield SagaClient(engine, schema=settings.database_schema)


def act(order: Order, ids: Sequence[UUID], choice: Choice, manner: Manner, database_url: str | None) -> None:
    """Ask each of these, or of those that are chosen; tell what came of each, and exit with the worst of it."""
    ended(asyncio.run(_each(order, ids, choice, manner, database_url)))


def ended(outcomes: Counter[str]) -> None:
    """Tell how many of each there were, and exit with the worst of them."""
    if outcomes:
        typer.echo(", ".join(f"{outcome}: {count:,}" for outcome, count in outcomes.items()), err=True)
    exit_with_worst(outcomes)


def exit_with_worst(outcomes: Container[str]) -> None:
    """End the program unless all went well."""
    for outcome, code in _CODES.items():
        if outcome in outcomes:
            raise typer.Exit(code)


async def _each(
    order: Order, ids: Sequence[UUID], choice: Choice, manner: Manner, database_url: str | None
) -> Counter[str]:
    outcomes: Counter[str] = Counter()
    async with client(database_url) as sagas:
        frozen = ids or await chosen(sagas, choice.among(order.word), choice.limit)
        if not frozen:
            typer.echo("No sagas match.", err=True)
        if not await wanted(sagas, order.word, frozen, manner, given=bool(ids)):
            return outcomes
        with Progress(len(frozen)) as progress:
            async for result in order.given_to(sagas, frozen, per_second=manner.per_second):
                outcomes[result.outcome.value] += 1
                progress.clear()
                tell(result, as_json=manner.as_json)
                progress.show(outcomes.total())
    return outcomes


async def chosen(sagas: SagaClient, which: SagaFilter, limit: int | None) -> Sequence[UUID]:
    """Those that a filter names, at this moment; what is a scan is told."""
    output.tell_scans(await sagas.scanned(which))
    return await sagas.ids(which, limit=limit)


async def wanted(sagas: SagaClient, word: str, ids: Sequence[UUID], manner: Manner, *, given: bool) -> bool:
    """Whether it is to be done: not in a dry run, and not unless somebody says so to what was chosen."""
    if manner.dry_run:
        await _tell_what_would_be(sagas, word, ids, as_json=manner.as_json)
        return False
    if not (given or manner.yes or not ids):
        ask_first(word, len(ids))
    return True


def ask_first(word: str, number: int) -> None:
    """Have somebody say yes.

    Raises:
        CommandError: nobody did.
    """
    say_yes(f"{word.capitalize()} {counted(number)}?", "nothing was asked")


def say_yes(question: str, otherwise: str) -> None:
    """Have somebody say yes; `otherwise` says what follows from a no.

    Raises:
        CommandError: nobody did.
    """
    try:
        sure = typer.confirm(question, err=True)
    except typer.Abort:
        raise CommandError(f"{otherwise}: nobody answered. Without a terminal, say --yes") from None
    if not sure:
        raise CommandError(otherwise)


async def _tell_what_would_be(sagas: SagaClient, word: str, ids: Sequence[UUID], *, as_json: bool) -> None:
    from orchestrator.bulk import BulkOutcome, BulkResult
    from orchestrator.cli.describe import how_it_stands
    from orchestrator.errors import UnknownSaga

    would, unknown = f"would {word}", False
    for saga_id in ids:
        try:
            row = await sagas.get(saga_id)
        except UnknownSaga as error:
            unknown = True
            tell(BulkResult(saga_id, BulkOutcome.UNKNOWN, error), as_json=as_json)
            continue
        if as_json:
            output.print_json({"saga_id": saga_id, "result": would, "error": None})
        else:
            output.say(f"{would}  {how_it_stands(row)}")
    typer.echo(f"{counted(len(ids))}. Nothing was done.", err=True)
    if unknown:
        raise typer.Exit(exits.NOT_FOUND)


def tell(result: BulkResult, *, as_json: bool) -> None:
    """Tell what came of one saga."""
    error = None if result.error is None else str(result.error)
    if as_json:
        output.print_json({"saga_id": result.saga_id, "result": result.outcome, "error": error})
        return
    typer.echo(f"{result.outcome}  {result.saga_id}")
    if error is not None:
        output.say(f"  {error}", err=True)


def counted(number: int) -> str:
    """So many sagas, in words."""
    return f"{number:,} saga{'s' * (number != 1)}"
