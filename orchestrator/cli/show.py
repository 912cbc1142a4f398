"""`saga show`: one saga, from its header to the notes in its history."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.cli import options, output
from orchestrator.cli.report import reported
from orchestrator.words import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from orchestrator.status import AuditRow, HistoryRow, SagaRow, StatusReader, TimelineRow


@reported
def show(saga_id: options.SagaId, *, database_url: options.DatabaseUrl = None, as_json: options.AsJson = False) -> None:
    """Show one saga: how it stands, what it waits for, every step with its messages, and what was noted."""
    seen = asyncio.run(_read(database_url, saga_id))
    if as_json:
        output.print_json({"saga": seen.row, "timeline": seen.timeline, "history": seen.history, "audit": seen.audit})
        return
    console = output.console()
    _print_header(console, seen.row)
    _print_timeline(console, seen.timeline)
    _print_notes(console, seen)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is known of a saga."""

    row: SagaRow
    timeline: Sequence[TimelineRow]
    history: Sequence[HistoryRow]
    audit: Sequence[AuditRow]


async def _read(database_url: str | None, saga_id: UUID) -> Seen:
    from orchestrator.cli.reading import reader

    async with reader(database_url) as sagas:
        return await seen_saga(sagas, saga_id)


async def seen_saga(sagas: StatusReader, saga_id: UUID) -> Seen:
    """Read all about a saga; the timeline after the row, so that an ended saga is seen with all its steps.

    Raises:
        UnknownSaga: none has this id.
    """
    row = await sagas.get(saga_id)
    if row is None:
        raise await sagas.missing(saga_id)
    timeline, history = await sagas.timeline(saga_id), await sagas.history(saga_id)
    return Seen(row, timeline, history, await sagas.audit(saga_id))


def _print_header(console: Console, row: SagaRow) -> None:
    from rich.text import Text

    from orchestrator.cli import describe

    title = Text.assemble((row.saga, "bold"), f" {row.saga_id}  ")
    console.print(title.append(row.status.value, output.status_style(row.status.value)))
    cause = describe.first_cause(row)
    ended = f", ended {output.instant(row.ended_at)}" if row.ended_at else ""
    facts = {
        "key": row.business_key or "",
        "started": f"{output.instant(row.started_at)} UTC{ended}, {duration(describe.age(row))}",
        "at": row.current_step or "",
        "waits for": _waiting(row),
        "blocked": describe.blocked_because(row) if row.blocked_reason else "",
        "first cause": cause,
        "what to do": describe.remedy(row),
    }
    for name, value in facts.items():
        if value:
            console.print(Text.assemble((f"  {name:<12}", "dim"), value), soft_wrap=True)


def _waiting(row: SagaRow) -> str:
    if not row.waiting_for:
        return ""
    if row.waiting_since is None:
        return row.waiting_for
    return f"{row.waiting_for}, for {duration(datetime.now(UTC) - row.waiting_since)}"


def _print_timeline(console: Console, timeline: Sequence[TimelineRow]) -> None:
    table = output.table("step", "status", "message", "sent", "answered", "took", "", terminal=console.is_terminal)
    for row in timeline:
        table.add_row(*_cells(row))
    console.print()
    output.print_table(console, table)


def _cells(row: TimelineRow) -> Sequence[Text | str]:
    from rich.text import Text

    from orchestrator.instance import Direction

    undoing = row.direction is Direction.COMPENSATION
    name = f"{row.step}[{row.branch}]" if row.branch else row.step
    to = f" to {row.participant}" if row.participant else ""
    tries = f" (attempt {row.attempt})" if row.attempt > 1 else ""
    return (
        Text(f"↩ {name}" if undoing else name, "yellow" if undoing else "bold"),
        Text(row.status.value, _style(row)),
        Text(f"{row.message or ''}{to}{tries}"),
        _sent(row),
        output.clock_time(row.ended_at) if row.ended_at else "…",
        duration((row.ended_at or datetime.now(UTC)) - row.started_at),
        Text(_remark(row)),
    )


def _sent(row: TimelineRow) -> str:
    if not row.participant:
        return ""
    return output.clock_time(row.sent_at) if row.sent_at else "" if row.ended_at else "not yet"


def _remark(row: TimelineRow) -> str:
    problem = ": ".join(part for part in (row.error_code, row.error_text) if part)
    if row.send_error and row.sent_at is None and row.ended_at is None:
        return f"cannot be sent: {row.send_error}"
    if row.status.open and row.deadline:
        return f"until {output.instant(row.deadline)[:19]}" + (f"; before: {problem}" if problem else "")
    return problem


def _style(row: TimelineRow) -> str:
    if row.status.open:
        return "bold cyan"
    return {"succeeded": "green", "cancelled": "dim", "skipped": "dim"}.get(row.status.value, "red")


def _print_notes(console: Console, seen: Seen) -> None:
    from rich.text import Text

    notes = [(note.at, f"{note.kind} {note.step}".strip(), note.text) for note in seen.history]
    notes += [(asked.at, f"{asked.action} asked", _answer(asked)) for asked in seen.audit]
    for at, what, text in sorted(notes):
        line = Text.assemble((f"{output.clock_time(at)}  ", "dim"), (what, "magenta"), f"  {text}")
        console.print(line, soft_wrap=True)


def _answer(asked: AuditRow) -> str:
    who = f"by {asked.by}: " if asked.by else ""
    became = f"refused, {asked.refused}" if asked.refused else f"{asked.before} → {asked.after}"
    return f"{who}{asked.reason} ({became})"
