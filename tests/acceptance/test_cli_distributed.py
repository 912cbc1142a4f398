"""The program over PostgreSQL and RabbitMQ: an operator's evening, in processes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from orchestrator.cli import exits
from tests.support.broker import Broker
from tests.support.programs import Program, Programs

WALLS = "tests.unit.cli.walls"


@pytest.fixture
def city(amqp_url: str, postgres_database: str, prefix: str, broker: Broker) -> Iterator[Programs]:
    """Programs that share a fresh database, and names of their own on the broker."""
    installation = f"{prefix}city"
    for queue in ("replies", "events"):
        broker.service_queue(f"{prefix}orchestrator.{installation}.{queue}")
    broker.service_queue(f"{prefix}painter")
    broker.exchange(f"{prefix}events")
    settings = {
        "MESSAGING_BROKER_URL": amqp_url,
        "MESSAGING_PREFIX": prefix,
        "ORCHESTRATOR_DATABASE_URL": postgres_database,
        "ORCHESTRATOR_APP": f"{WALLS}:app",
    }
    with Programs(settings) as programs:
        programs.done(programs.saga("migrate", "--installation", installation))
        yield programs


def ended(program: Program) -> tuple[int, str]:
    return program.result(), program.said


def test_sagas_are_run_started_read_and_steered_by_separate_processes(city: Programs) -> None:
    assert "is up to date" in city.done(city.saga("migrate", "--check"))
    engine, painter = city.saga("run", f"{WALLS}:app"), city.saga("run", f"{WALLS}:painter")
    for process in (engine, painter):
        process.wait_until_it_says("Stop with Ctrl-C")
        assert "amqp://" in process.said and "***" in process.said

    start = ("start", "paint-wall", "--wait", "--timeout", "30", "--json", "--data")
    code, said = ended(city.saga(*start, '{"name": "north"}', "--key", "n"))
    assert code == 0, said
    well = json.loads(said)
    assert well["status"] == "completed"
    code, said = ended(city.saga(*start, '{"name": "south", "ends": "blocked"}'))
    assert code == exits.NOT_COMPLETED, said
    blocked = json.loads(said)["saga_id"]

    assert blocked in city.done(city.saga("list", "--status", "blocked"))
    assert "blocked sagas: 1" in city.done(city.saga("doctor"))
    shown = json.loads(city.done(city.saga("show", well["saga_id"], "--json")))
    assert shown["saga"]["started_at"] == well["started_at"]
    assert [step["participant"] for step in shown["timeline"]] == ["painter", None]

    code, said = ended(city.saga("retry", well["saga_id"], "--reason", "why not"))
    assert code == exits.REFUSED and "refused: it is completed" in said
    assert f"Accepted: saga {blocked} is compensat" in city.done(city.saga("cancel", blocked, "--reason", "too late"))
    assert "■ compensated" in city.done(city.saga("watch", blocked))

    for process in (engine, painter):
        process.interrupt()
        assert process.result() == 0
    code, said = ended(city.saga("cancel", well["saga_id"], "--reason", "nobody is there"))
    assert code == exits.UNREACHABLE and "no engine took the cancel" in said
