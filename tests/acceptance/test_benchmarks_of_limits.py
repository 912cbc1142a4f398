"""Benchmarks of single limits (timers, recovery, memory ...) run, and count right. How fast it is, is no test."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from pydantic import SecretStr

from benchmarks import costs, disk, growth, memory, recovery, saga_run, scaling, steady, timers
from benchmarks.drawing import chart
from benchmarks.ends import Ends
from benchmarks.report import report
from benchmarks.three_steps import Done, ReserveStock
from benchmarks.unanswered import QUEUE, Unanswered, written
from benchmarks.workloads import SERVICES, WORKLOADS, orchestrator
from messaging import Service
from messaging.settings import MessagingSettings
from orchestrator import Orchestrator, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from tests.support.databases import fresh_database
from tests.support.private import PrivatePostgres, PrivateRabbit

ROOT = Path(__file__).parents[2]


async def test_each_timer_is_counted_once_on_both_databases(postgres_url: str) -> None:
    options = Namespace(postgres=postgres_url, per_second=20, seconds=1, ahead=3.0)

    measured = await timers.on_each(options)

    assert list(measured) == ["PostgreSQL", "SQLite"]
    assert all(one["timers"] == 20 and 0 < one["p50_ms"] <= one["max_ms"] for one in measured.values())
    assert "| SQLite " in timers.table(measured)


@pytest.mark.parametrize("begun", [True, False])
async def test_copies_of_a_saga_are_what_the_engine_would_have_written(migrated_database: str, begun: bool) -> None:
    service, ends = Service(QUEUE), Ends()

    @service.handles(ReserveStock)
    async def reserve_stock(command: ReserveStock) -> Done:
        return Done(reference=str(command.order))

    await written(migrated_database, 5, begun=begun)
    app = Orchestrator([Unanswered])
    app.use(ends)
    settings = OrchestratorSettings(database_url=SecretStr(migrated_database))
    async with running(app, service, settings=settings, messaging=MessagingSettings()), asyncio.timeout(60):
        while ends.count < 5:
            await ends.more.wait()
            ends.more.clear()


def test_all_unsent_commands_come_to_the_broker(amqp_url: str, postgres_url: str) -> None:
    options = Namespace(amqp=amqp_url, postgres=postgres_url, unsent=7, rounds=1, give_up_after=60.0)

    results = recovery.rounds(options)

    assert 0 < results[0]["first_s"] <= results[0]["all_s"] <= results[0]["marked_s"]
    assert results[0]["copies"] == 0 and results[0]["peak_mib"] > 20
    assert "| 7 " in recovery.table(options, results)


def test_memory_is_read_with_sagas_in_flight(amqp_url: str, postgres_url: str) -> None:
    options = Namespace(amqp=amqp_url, postgres=postgres_url, in_flight=[0, 7], rest=0.0, give_up_after=60.0)

    measured = memory.each(options)

    assert all(20 < one["now_mib"] <= one["peak_mib"] for one in measured.values())
    assert [line.split("|")[1].strip() for line in memory.table(measured).splitlines()[2:]] == ["0", "7"]


async def test_what_a_saga_takes_on_the_disk_is_told_by_table_index_and_column(postgres_url: str) -> None:
    with fresh_database(postgres_url) as url:
        await asyncio.to_thread(upgrade, url)
        measured = await disk.measure(url, 30, lambda engine, url: disk.run_by_the_engine(engine, url, 30))

    assert measured["left"]["saga_step"] > 0 and measured["packed"]["saga_step: pk_saga_step"] > 0
    assert measured["columns"]["saga_step: saga_id"] == 3 * 16  # three rows of a UUID
    assert "| all of it " in disk.tables("run by the engine", measured)


def test_figures_are_written_as_json_where_they_are_asked_for(tmp_path: Path) -> None:
    report(Namespace(json=str(tmp_path / "out.json")), "a table", {"answers": [42]})

    written_there = json.loads((tmp_path / "out.json").read_text())
    assert written_there["answers"] == [42] and "cores" in written_there["machine"]


def test_latency_is_measured_at_half_of_what_goes_through(
    amqp_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Namespace(
        amqp=amqp_url, postgres=postgres_url, rounds=1, sagas=20, in_flight=[10], share=0.5, seconds=0.1
    )
    monkeypatch.setattr(steady, "KINDS", {"..., coalesced": steady.KINDS["..., coalesced"]})

    (measured,) = steady.rounds(options)["..., coalesced"]

    assert measured["pace_per_second"] == pytest.approx(measured["highest_per_second"] / 2, abs=0.1)
    assert measured["in_flight"] == 10 and 0 < measured["p50_ms"] <= measured["p99_ms"]
    assert "| ..., coalesced " in steady.table({"..., coalesced": [measured]})


def test_growth_is_measured_and_drawn_and_drawn_again_from_what_was_written(
    amqp_url: str, postgres_url: str, tmp_path: Path
) -> None:
    options = Namespace(amqp=amqp_url, postgres=postgres_url, stored=[100], in_flight=[5], sagas=10, rounds=1)

    measured = {"stored": growth.over_stored(options), "in_flight": growth.over_in_flight(options)}

    assert [list(series) for series in measured.values()] == [[100], [5]]
    assert "| 100 " in growth.tables(measured) and "| 5 " in growth.tables(measured)
    report(Namespace(json=str(tmp_path / "growth.json")), "", {"growth": measured})
    assert growth.read(str(tmp_path / "growth.json")) == measured
    assert [file.name for file in growth.drawn(measured, tmp_path)] == ["growth-stored.svg", "growth-in-flight.svg"]


def test_a_chart_has_a_line_for_each_series_and_says_its_figures() -> None:
    drawn = ElementTree.fromstring(chart("A & B", "sagas", {"sagas/s": [(1, 20.0), (10, 300.0)], "p50 ms": [(1, 5.0)]}))

    texts = ["".join(one.itertext()) for one in drawn.iter("{http://www.w3.org/2000/svg}title")]
    assert texts == ["A & B", "sagas/s: 20 at 1", "sagas/s: 300 at 10", "p50 ms: 5 at 1"]
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}polyline"))) == 2


@pytest.mark.parametrize("mode", ["open", "closed"])
async def test_a_loop_tells_the_time_of_each_of_its_sagas_alone(migrated_database: str, mode: str) -> None:
    engine, ends, app = connect(migrated_database, ConnectionSettings()), Ends(), orchestrator()
    app.use(ends)
    options = Namespace(saga="three-steps", sagas=5, in_flight=2, rate=100.0)
    settings = OrchestratorSettings(database_url=SecretStr(migrated_database))
    async with running(app, *SERVICES, settings=settings, messaging=MessagingSettings()):
        await saga_run.warmed_up(engine, ends, options)
        before = ends.count
        await (saga_run.open_loop if mode == "open" else saga_run.closed_loop)(engine, ends, options)
    took = await saga_run.latencies(engine, WORKLOADS["three-steps"], options.sagas)
    await engine.dispose()

    assert before > 0 and ends.count == before + 5
    assert len(took) == 5 and all(one > 0 for one in took)


async def test_what_a_saga_costs_each_server_is_read_from_private_ones(
    private_rabbit: PrivateRabbit, private_postgres: PrivatePostgres
) -> None:
    options, servers = Namespace(sagas=20, rest=0.0), costs.Servers(private_rabbit, private_postgres)
    with fresh_database(private_postgres.url) as url:
        await asyncio.to_thread(upgrade, url)
        measured = await costs.measure(options, servers, url, coalesced=True)

    assert measured["messages"] == 6  # three commands and three answers
    assert measured["orchestrator_us"] > 0 and measured["wal_bytes"] > 0
    assert "| wal_bytes " in costs.table({"coalesced": [measured]})


def test_the_page_on_scaling_has_what_the_model_computes() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()

    assert scaling.written(page) == page, "run: python -m benchmarks.scaling --write docs/scaling.md"


def test_the_model_of_scale_asks_for_as_much_as_its_scarcest_part() -> None:
    cheap = scaling.Costs(1000, 0, 0, 0, 0, 0, sagas_per_second=500, cores=1)
    logging = scaling.Costs(1000, 0, 0, 0, 1e6, 0, sagas_per_second=500, cores=1)

    few, many = (scaling.needed(1200, one) for one in (cheap, logging))

    assert (few.partitions, few.bound_by, few.orchestrators) == (1, "replies through one queue", 2)
    assert (many.partitions, many.bound_by, many.orchestrators) == (12, "log of one database", 24)  # two in each
    assert scaling.reached(cheap) == (1000, 0.5)
