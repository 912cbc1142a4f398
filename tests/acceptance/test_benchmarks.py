"""The benchmark runs and counts right. How fast it is, is no test."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks import stored
from benchmarks.__main__ import on_clean_services, summary
from benchmarks.bus.__main__ import TASKS
from benchmarks.bus.contenders import OURS, PEERS
from benchmarks.contenders import BASE, contenders
from benchmarks.parts import measure
from benchmarks.starting import PROGRAMS, starting_times
from orchestrator.sql.migrate import upgrade
from tests.support.broker import Broker
from tests.support.cached import python_with
from tests.support.databases import fresh_database

ROOT = Path(__file__).parents[2]
ROW = ["sagas_per_second", "p50_ms", "p99_ms", "cpu_us_per_saga", "cpu_us_per_command"]


def test_a_short_run_measures_and_the_table_names_every_contender(amqp_url: str, postgres_url: str) -> None:
    options = Namespace(amqp=amqp_url, postgres=postgres_url, sagas=20)
    ours = {one.name: one for one in contenders(peers=False)}
    shown = [BASE, "embedded, refused at step 3, two undos"]

    measured = {name: on_clean_services(options, ours[name]) for name in shown}

    assert all(list(one) == ROW and all(value > 0 for value in one.values()) for one in measured.values())
    table = summary({name: [measured.get(name, measured[BASE])] for name in ours})
    assert all(f"| {name} " in table for name in ours)


@pytest.mark.parametrize("on", ["sqlite", "postgresql"])
async def test_a_saga_is_measured_part_by_part(on: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'parts.db'}"
    if on == "sqlite":
        upgrade(url)
    else:
        url = request.getfixturevalue("migrated_database")

    parts = await measure(url, rounds=1, sagas=2)

    assert len(parts.least) == 8 and all(taken > 0 for taken in parts.least.values())


def test_starting_times_are_taken_of_each_program() -> None:
    times = starting_times(rounds=1)

    assert list(times) == list(PROGRAMS) and all(len(taken) == 1 and taken[0] > 0 for taken in times.values())


@pytest.mark.torture
@pytest.mark.timeout(600)  # the first time, packages are installed
def test_peers_run_their_sagas(amqp_url: str, postgres_url: str) -> None:
    options = Namespace(amqp=amqp_url, postgres=postgres_url, sagas=20)
    peers = [one for one in contenders(peers=True) if one.packages]

    measured = [on_clean_services(options, one) for one in peers]

    assert peers and all(list(run) == ROW and all(value > 0 for value in run.values()) for run in measured)


@pytest.mark.torture
@pytest.mark.timeout(600)  # the first time, packages are installed
async def test_the_bus_and_its_peers_do_every_task(amqp_url: str, broker: Broker) -> None:
    for peer in PEERS:
        python_with(peer.package)
    for exchange in ("direct_exchange", "fanout_exchange", "topic_exchange"):
        broker.exchange(exchange)  # of PyMessagingFramework, to be deleted afterwards

    told = await asyncio.to_thread(
        run, "benchmarks.bus", "--amqp", amqp_url, "--peers", "--rounds", "1", "--messages", "5"
    )

    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.splitlines() if line.startswith("| ")]
    assert [row[:2] for row in rows[1:]] == [[task, one.name] for task in TASKS for one in OURS + PEERS]
    assert all(float(row[2]) > 0 for row in rows[1:])


@pytest.mark.torture
def test_a_stalled_service_takes_no_more_memory_the_more_waits(amqp_url: str) -> None:
    much = ["--waiting", "130", "600", "--kib", "64"]  # of which at most 128 are fetched

    told = run("benchmarks.backpressure", "--amqp", amqp_url, *much, "--seconds", "1")

    ratios = [float(line.split("|")[-2]) for line in told.splitlines()[2:]]
    assert len(ratios) == 2 and all(0.85 < ratio < 1.15 for ratio in ratios)


@pytest.mark.torture
def test_a_purge_beside_sagas_that_run_is_measured(postgres_url: str) -> None:
    few = ["--ended", "300", "--rounds", "1", "--seconds", "1", "--in-flight", "20"]

    told = run("benchmarks.purging", "--postgres", postgres_url, *few)

    ended, deleted, _, ratio = told.splitlines()[2].split("|")[1:-1]
    assert ended.strip() == "300" and int(deleted) > 0 and float(ratio) > 0
    assert "ix_saga_instance_ended" in told


def run(module: str, *arguments: str) -> str:
    """What a benchmark prints, once it has ended well."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_what_is_read_of_many_stored_sagas_is_measured(postgres_url: str) -> None:
    options = Namespace(ended=300, live=100, times=1, rounds=1, seconds=0.1, in_flight=5, plans=True)
    with fresh_database(postgres_url) as url, fresh_database(postgres_url) as empty_url:
        for one in (url, empty_url):
            await asyncio.to_thread(upgrade, one)
        told = await stored.measure(options, url, empty_url)

    assert "300 ended, 100 live sagas" in told
    assert all(f"| {name} " in told for name in stored.questions(options))
    assert "Index" in told and "on an empty one:" in told
