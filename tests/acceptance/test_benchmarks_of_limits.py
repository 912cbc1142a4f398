"""Benchmarks of timers, recovery, memory and disk run, and count right. How fast or how much it is, is no test."""

from __future__ import annotations

import asyncio
import json
from argparse import Namespace
from pathlib import Path

import pytest
from pydantic import SecretStr

from benchmarks import disk, memory, recovery, timers
from benchmarks.ends import Ends
from benchmarks.report import report
from benchmarks.three_steps import Done, ReserveStock
from benchmarks.unanswered import QUEUE, Unanswered, written
from messaging import Service
from messaging.settings import MessagingSettings
from orchestrator import Orchestrator, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.migrate import upgrade
from tests.support.databases import fresh_database


async def test_each_timer_is_counted_once_on_both_databases(postgres_url: str) -> None:
    options = Namespace(postgres=postgres_url, per_second=20, seconds=1, ahead=0.0)

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
