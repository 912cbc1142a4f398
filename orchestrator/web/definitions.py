"""Definitions: which there are, how many sagas still need each, and which processes have it. Reads only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection

from orchestrator.definition import Saga
from orchestrator.graph import Group, Part, Shape, shapes_of, spoken
from orchestrator.holds import Hold, hold_of
from orchestrator.instance import Pin, SagaStatus
from orchestrator.plan import CommandLeaf, LeafPlan, LocalLeaf
from orchestrator.registry import SagaRegistry
from orchestrator.sql.holds import held
from orchestrator.sql.in_flight import in_flight
from orchestrator.sql.versions import live_workers
from orchestrator.web.web import Web
from orchestrator.workers import DEAD_AFTER


@dataclass(frozen=True, slots=True)
class Definition:
    """A version of a saga that some process has, or that some saga needs."""

    saga: str
    version: int
    fingerprint: str
    known: bool
    """Whether this process has it."""
    in_flight: int
    blocked: int
    """Of those in flight."""
    workers: Sequence[str]
    """Processes with an engine that have it, `HOST:PID`, if heard of within a minute."""
    hold: Hold | None
    """What keeps its sagas from beginning, if anything does."""


@dataclass(frozen=True, slots=True)
class StepRow:
    """A step in words."""

    name: str
    does: str
    undone_by: str
    timeout: str
    """Of one attempt."""
    tries: str


def definitions(
    connection: Connection, registry: SagaRegistry | None, *, now: datetime, schema: str | None = None
) -> list[Definition]:
    """All that are known here, needed by a saga in flight, or announced by a worker; by name, the newest first."""
    flying, blocked = Counter[Pin](), Counter[Pin]()
    for place in in_flight(connection, schema=schema):
        flying[place.pin] += place.count
        blocked[place.pin] += place.count if place.status is SagaStatus.BLOCKED else 0
    having: dict[Pin, list[str]] = {}
    for worker in live_workers(connection, now, DEAD_AFTER, schema=schema):
        for pin in worker.pins:
            having.setdefault(pin, []).append(f"{worker.host}:{worker.process_id}")
    holds = held(connection, schema)
    here = () if registry is None else registry.pins
    pins = sorted({*here, *flying, *having}, key=lambda pin: (pin.name, -pin.version, pin.fingerprint))
    return [
        Definition(
            saga=pin.name,
            version=pin.version,
            fingerprint=pin.fingerprint,
            known=pin in here,
            in_flight=flying[pin],
            blocked=blocked[pin],
            workers=sorted(having.get(pin, ())),
            hold=hold_of(holds, pin),
        )
        for pin in pins
    ]


async def definitions_now(web: Web) -> list[Definition]:
    """The same, as things stand now, for the page and for the API."""
    database = web.database
    return await database.read(lambda c: definitions(c, web.registry, now=datetime.now(UTC), schema=database.schema))


def steps_of(saga: type[Saga[Any]]) -> list[StepRow]:
    """What a saga's steps do, in order."""
    return [_row(shape, saga.plan.leaves.get(shape.name)) for shape in _flat(shapes_of(saga))]


def _flat(part: Part) -> list[Shape]:
    if isinstance(part, Group):
        return [shape for inner in part.parts for shape in _flat(inner)]
    return [part]


def _row(shape: Shape, leaf: LeafPlan | None) -> StepRow:
    timeout = tries = ""
    if isinstance(leaf, (CommandLeaf, LocalLeaf)):
        timeout = spoken(leaf.step.timeout)
        most = leaf.step.retry.max_attempts
        tries = "until it succeeds" if most is None else str(most)
    return StepRow(shape.name, "; ".join(shape.lines), shape.undone_by, timeout, tries)
