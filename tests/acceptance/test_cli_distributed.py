"""The program over PostgreSQL and RabbitMQ: an operator's evening, in processes of their own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import httpx
import pytest

from orchestrator.cli import exits
from tests.support.broker import Broker
from tests.support.programs import Program, Programs
from tests.support.services import free_ports

T = TypeVar("T")
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


def test_the_dashboard_tells_what_waits_and_who_takes_it(city: Programs) -> None:
    (port,) = free_ports(1)
    dashboard = city.saga("dashboard", "--listen", f"127.0.0.1:{port}")
    dashboard.wait_until_it_says("The dashboard of")
    bus = f"http://127.0.0.1:{port}/api/bus"

    before = httpx.get(bus, timeout=30).json()
    assert before["broker"]["note"] == ""
    assert [(one["queue"].rpartition(".")[2], one["missing"]) for one in before["broker"]["queues"]] == [
        *(("replies", True), ("events", True), ("painter", True))
    ]
    city.done(city.saga("start", "paint-wall", "--data", '{"name": "north"}'))
    engine = city.saga("run", f"{WALLS}:app")
    engine.wait_until_it_says("Stop with Ctrl-C")

    def refused() -> Any:
        return [one for one in httpx.get(bus, timeout=30).json()["waiting"]["commands"] if one["error"]]

    (unsent,) = eventually(refused)
    assert (unsent["participant"], unsent["commands"], len(unsent["sagas"])) == ("painter", 1, 1)
    painter = city.saga("run", f"{WALLS}:painter")
    painter.wait_until_it_says("Stop with Ctrl-C")

    def all_consumed() -> bool:
        queues = httpx.get(bus, timeout=30).json()["broker"]["queues"]
        return len(queues) == 3 and all(one["consumers"] == 1 for one in queues)

    assert eventually(all_consumed)
    for process in (engine, painter, dashboard):
        process.interrupt()
        assert process.result() == 0


def eventually(look: Callable[[], T]) -> T:
    """What a look finds, as soon as it finds something."""
    until = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < until
        time.sleep(0.1)
    return found


def test_sagas_are_run_started_read_and_steered_by_separate_processes(city: Programs) -> None:
    assert "is up to date" in city.done(city.saga("migrate", "--check"))
    told = city.done(city.saga("doctor"))
    assert "warn queues    there is no queue painter: nothing that goes to it can be sent" in told
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
    told = city.done(city.saga("doctor"))
    assert "blocked sagas: 1" in told and "ok   clock " in told
    assert "ok   queues    queue painter: consumers: 1, messages that wait in it: 0" in told
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
    told = city.done(city.saga("doctor", f"{WALLS}:app"))
    assert "warn queues    nobody takes from queue painter; messages that wait in it: 0" in told
    code, said = ended(city.saga("cancel", well["saga_id"], "--reason", "nobody is there"))
    assert code == exits.UNREACHABLE and "no engine took the cancel" in said
