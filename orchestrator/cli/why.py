"""`saga why`: why a saga stands where it stands, and what is safe to do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from orchestrator.cli import options, output
from orchestrator.cli.report import reported

if TYPE_CHECKING:
    from orchestrator.evidence import Evidence

_NOT_HERE: Final = "if start_later asked for it, its message is still to come; see that the caller's outbox is relayed"


@reported
def why(saga_id: options.SagaId, *, database_url: options.DatabaseUrl = None, as_json: options.AsJson = False) -> None:
    """Tell why a saga stands where it stands, and what is safe to do about it.

    What it is blocked on or waits for, since when, with the ids of what is out; the last error; who paused it;
    whether an engine looks after it at all. Then each action that its status admits, with what follows from it.
    """
    from orchestrator.why import explain

    evidence = asyncio.run(_read(database_url, saga_id))
    explanation = explain(evidence, now=datetime.now(UTC))
    if as_json:
        output.print_json({"saga_id": saga_id, "why": explanation.paragraph, "advice": explanation.advice})
        return
    console = output.console()
    console.print(explanation.paragraph, soft_wrap=not console.is_terminal, markup=False)
    if explanation.advice:
        console.print("\nSafe to do:")
    for advice in explanation.advice:
        console.print(f"  {advice.do}\n      {advice.consequence}", soft_wrap=True, markup=False)


async def _read(database_url: str | None, saga_id: UUID) -> Evidence:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.errors import SagaPurged, UnknownSaga
    from orchestrator.evidence import read_evidence, refused_start
    from orchestrator.status import missing

    settings = orchestrator_settings(database_url)
    async with opened(settings) as engine, engine.connect() as connection:
        evidence = await connection.run_sync(read_evidence, saga_id, schema=settings.database_schema)
        if evidence is None:
            gone = await connection.run_sync(missing, saga_id, schema=settings.database_schema)
            if isinstance(gone, SagaPurged):
                raise gone
            refused = await connection.run_sync(refused_start, saga_id, schema=settings.database_schema)
            put_aside = f"the message that was to start it was put aside, since {refused}" if refused else _NOT_HERE
            raise UnknownSaga(saga_id, put_aside)
    return evidence
