"""`saga erase`: what ended sagas knew is replaced, when somebody demands that their data go."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import typer

from orchestrator.cli import acting, many, options
from orchestrator.cli.progress import Progress
from orchestrator.cli.report import reported


@reported
def erase(
    ids: acting.Ids = None,
    *,
    reason: options.Reason,
    saga: options.SagaName = None,
    status: options.Status = None,
    key: options.Key = None,
    error: options.Error = None,
    where: options.Where = None,
    older_than: options.OlderThan = None,
    limit: options.Limit = None,
    everything: acting.All = False,
    dry_run: options.DryRun = False,
    yes: options.Yes = False,
    database_url: options.DatabaseUrl = None,
    as_json: options.AsJson = False,
) -> None:
    """Erase what ended sagas and their children knew: state, messages, items, texts. There is no way back.

    Rows, keys, statuses and times stay, and the audit keeps who asked and why, so name nobody in the reason.
    Sagas that have not ended are refused (exit code 4). What lies elsewhere is told at the end.

    Give ids; or choose among those that have ended. How many they are is told and asked about before, unless --yes
    is said.
    """
    in_state = tuple(options.parsed_where(where).items())
    chosen = many.Choice(saga, status, key, None, error, in_state, older_than, limit, everything)
    many.refuse_unclear("erase", ids or [], chosen)
    manner = many.Manner(1, dry_run, yes, as_json)
    many.ended(asyncio.run(_each(ids or [], reason, chosen, manner, database_url)))


async def _each(
    ids: Sequence[UUID], reason: str, choice: many.Choice, manner: many.Manner, database_url: str | None
) -> Counter[str]:
    from orchestrator.erasing import ELSEWHERE

    outcomes: Counter[str] = Counter()
    async with many.client(database_url) as sagas:
        which = replace(choice.among("cancel"), ended=True)
        frozen = ids or await many.chosen(sagas, which, choice.limit)
        if not frozen:
            typer.echo("No sagas match.", err=True)
        if not await many.wanted(sagas, "erase", frozen, manner, given=bool(ids)):
            return outcomes
        with Progress(len(frozen)) as progress:
            async for result in sagas.erase(frozen, reason=reason, by=acting.who()):
                outcomes[result.outcome.value] += 1
                progress.clear()
                many.tell(result, as_json=manner.as_json)
                progress.show(outcomes.total())
    if outcomes["done"]:
        typer.echo(ELSEWHERE, err=True)
    return outcomes
