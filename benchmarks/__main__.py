"""All contenders, round by round so that a noisy machine hits each alike; medians and ratios.

make bench                                  # or, with services of one's own:
python -m benchmarks --rounds 5 --amqp amqp://... --postgres postgresql://...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from importlib.metadata import version
from uuid import uuid4

from benchmarks.numbers import markdown, median
from tests.support.databases import fresh_database

_VERSIONS = ("aio-pika", "SQLAlchemy", "pydantic", "asyncpg")
_BASE = "bare aio-pika"


def contenders(options: argparse.Namespace, database: str, prefix: str) -> dict[str, list[str]]:
    """What is measured, by name: the command of one run."""
    loaded = ["--sagas", str(options.sagas), "--in-flight", "200"]
    alone = ["--sagas", str(max(options.sagas // 20, 20)), "--in-flight", "1"]
    distributed = ["benchmarks.saga_run", "distributed", "--broker", options.amqp, "--prefix", prefix]
    return {
        _BASE: ["benchmarks.bare", options.amqp, *loaded],
        "RabbitMQ + PostgreSQL": [*distributed, "--database", database, *loaded],
        "embedded (memory, SQLite)": ["benchmarks.saga_run", "embedded", *loaded],
        f"{_BASE}, one at a time": ["benchmarks.bare", options.amqp, *alone],
        "RabbitMQ + PostgreSQL, one at a time": [*distributed, "--database", database, *alone],
        "embedded, one at a time": ["benchmarks.saga_run", "embedded", *alone],
    }


def one_run(command: list[str], python: str = sys.executable) -> dict[str, float]:
    """Run a contender; a contender that fails ends the benchmark with its output."""
    done = subprocess.run([python, "-m", *command], stdout=subprocess.PIPE, text=True, timeout=400, check=False)
    if done.returncode != 0:
        raise SystemExit(f"python -m {' '.join(command)} failed with {done.returncode}\n{done.stdout}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


async def delete_queues(amqp: str, prefix: str) -> None:
    """Leave nothing behind on the broker."""
    import aio_pika

    names = ["bench-stock", "bench-cards", "bench-shipping", "orchestrator.main.replies", "orchestrator.main.events"]
    connection = await aio_pika.connect(amqp)
    async with connection, connection.channel() as channel:
        for name in names:
            await channel.queue_delete(f"{prefix}{name}")
            await channel.queue_delete(f"{prefix}{name}.dead")
        for name in ("events", "orchestrator.main.replies.owner"):
            await channel.exchange_delete(f"{prefix}{name}")


def on_clean_services(options: argparse.Namespace, name: str) -> dict[str, float]:
    """One run on an empty database and queues of its own."""
    prefix = f"bench-{uuid4().hex[:8]}."
    try:
        with fresh_database(options.postgres) as database:
            return one_run(contenders(options, database, prefix)[name])
    finally:
        asyncio.run(delete_queues(options.amqp, prefix))


def run_all(options: argparse.Namespace) -> dict[str, list[dict[str, float]]]:
    """Round after round, each contender once a round, each on an empty database."""
    results: dict[str, list[dict[str, float]]] = {}
    for number in range(1, options.rounds + 1):
        for name in contenders(options, "", ""):
            result = on_clean_services(options, name)
            results.setdefault(name, []).append(result)
            print(f"round {number}/{options.rounds}  {name:40} {result}", file=sys.stderr, flush=True)
    return results


def summary(results: dict[str, list[dict[str, float]]]) -> str:
    """Medians over the rounds, and the ratio to the bare loop of the same kind."""
    rows: list[list[object]] = []
    for name, runs in results.items():
        base = f"{_BASE}, one at a time" if name.endswith("one at a time") else _BASE
        rate, of_base = (median([run["sagas_per_second"] for run in results[n] if run]) for n in (name, base))
        p50, p99, cpu = (median([run[key] for run in runs]) for key in ("p50_ms", "p99_ms", "cpu_us_per_saga"))
        rows.append([name, rate, f"{rate / of_base:.2f}", p50, p99, cpu])
    return markdown(["three-step saga", "sagas/s", "ratio to bare", "p50 ms", "p99 ms", "CPU µs/saga"], rows)


def main() -> None:
    """Parse, run, print a table; JSON beside it with --json FILE."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--amqp", default=os.environ.get("SAGASMITH_TEST_AMQP_URL", ""))
    parser.add_argument("--postgres", default=os.environ.get("SAGASMITH_TEST_POSTGRES_URL", ""))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sagas", type=int, default=3000)
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    if not (options.amqp and options.postgres):
        parser.error("name the services with --amqp and --postgres, or run: make bench")
    results = run_all(options)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, " + ", ".join(
        f"{name} {version(name)}" for name in _VERSIONS
    )
    print(f"{summary(results)}\n\nmedians of {options.rounds} rounds; {machine}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "rounds": results}, file, indent=1)


if __name__ == "__main__":
    main()
