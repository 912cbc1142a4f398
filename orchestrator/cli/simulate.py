"""`--simulate`: what an action would do to each of these sagas, as the core decides it; nothing is written or sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

import typer

from orchestrator.cli import many, output

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from orchestrator.registry import SagaRegistry
    from orchestrator.simulating import Simulated

_READ_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class Where:
    """Where the sagas are, and their definitions."""

    database_url: str | None
    app: str | None
    app_dir: str


def simulate(order: many.Order, ids: Sequence[UUID], choice: many.Choice, where: Where, *, as_json: bool) -> None:
    """Tell what would be done to each of these sagas, or of those that are chosen; exits with the worst of it."""
    frozen = ids or asyncio.run(_chosen(order, choice, where))
    if not frozen:
        typer.echo("No sagas match.", err=True)
    outcomes: set[str] = set()
    for saga_id, told in asyncio.run(_simulated(order, frozen, where)):
        if as_json:
            problem = told if isinstance(told, str) else None
            output.print_json({"saga_id": saga_id, "simulated": None if problem else told, "error": problem})
        else:
            output.say("\n".join(_lines(order, saga_id, told)))
        outcomes.add("unknown" if isinstance(told, str) else "refused" if told.refused else "would be done")
    typer.echo(f"{many.counted(len(frozen))}. Nothing was done.", err=True)
    many.exit_with_worst(outcomes)


async def _chosen(order: many.Order, choice: many.Choice, where: Where) -> Sequence[UUID]:
    async with many.client(where.database_url) as sagas:
        return await many.chosen(sagas, choice.among(order.word), choice.limit)


async def _simulated(order: many.Order, ids: Sequence[UUID], where: Where) -> Sequence[tuple[UUID, Simulated | str]]:
    from orchestrator.cli.config import orchestrator_settings
    from orchestrator.cli.database import opened
    from orchestrator.cli.targets import loaded_app

    settings = orchestrator_settings(where.database_url, where.app)
    registry = loaded_app(settings.app, app_dir=where.app_dir).registry
    async with opened(settings) as engine, engine.connect() as connection:
        return await connection.run_sync(_told, order, ids, registry, settings.database_schema)


def _told(
    connection: Connection, order: many.Order, ids: Sequence[UUID], registry: SagaRegistry, schema: str | None
) -> list[tuple[UUID, Simulated | str]]:
    from orchestrator.bulk import action
    from orchestrator.simulating import simulated
    from orchestrator.sql.versions import read_sagas

    asked = action(order.word, reason=order.reason, step=order.step, by=order.by)
    told: list[tuple[UUID, Simulated | str]] = []
    for few in _few(ids):
        found = read_sagas(connection, few, schema=schema)
        for saga_id in few:
            saga = found.get(saga_id)
            if saga is None:
                told.append((saga_id, "no saga has this id"))
            elif (definition := registry.find(saga.pin)) is None:
                told.append(
                    (saga_id, f"{saga.pin.name} v{saga.pin.version} of {saga.pin.fingerprint} is not defined there")
                )
            else:
                told.append((saga_id, simulated(definition, saga, asked, now=datetime.now(UTC))))
    return told


def _few(ids: Sequence[UUID]) -> Iterator[Sequence[UUID]]:
    return (ids[first : first + _READ_AT_ONCE] for first in range(0, len(ids), _READ_AT_ONCE))


def _lines(order: many.Order, saga_id: UUID, told: Simulated | str) -> Iterator[str]:
    if isinstance(told, str):
        yield f"unknown  {saga_id}: {told}"
    elif told.refused:
        yield f"would be refused  {saga_id}: {told.refused}"
    else:
        at = f", at {told.at}" if told.at else ""
        yield f"would {order.word}  {saga_id}: {told.before.value} → {told.after.value}{at}"
        yield from (f"    {effect}" for effect in told.effects)
