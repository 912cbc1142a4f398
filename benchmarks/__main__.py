"""All contenders, round by round so that a noisy machine hits each alike; medians and ratios.

make bench                                  # or, with services of one's own:
python -m benchmarks --rounds 5 --amqp amqp://... --postgres postgresql://...
python -m benchmarks --peers                # other people's engines as well; or: make bench-peers
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from uuid import uuid4

from benchmarks.contenders import BASE, BASE_ALONE, Contender, contenders
from benchmarks.numbers import markdown, median
from benchmarks.starting import starting_times
from tests.support.databases import fresh_database

Results = Mapping[str, list[dict[str, float]]]

_SHOWN = ("p50_ms", "p99_ms", "cpu_us_per_saga", "cpu_us_per_command")
_VERSIONS = ("aio-pika", "SQLAlchemy", "pydantic", "asyncpg")


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


def on_clean_services(options: argparse.Namespace, contender: Contender) -> dict[str, float]:
    """One run on an empty database and queues of its own."""
    prefix = f"bench-{uuid4().hex[:8]}."
    try:
        with fresh_database(options.postgres) as database:
            return one_run(contender.command(options, database, prefix), contender.python())
    finally:
        asyncio.run(delete_queues(options.amqp, prefix))


def run_all(options: argparse.Namespace) -> Results:
    """Round after round, each contender once a round, each on an empty database."""
    results: dict[str, list[dict[str, float]]] = {}
    measured = contenders(peers=options.peers)
    for number in range(1, options.rounds + 1):
        for contender in measured:
            result = on_clean_services(options, contender)
            results.setdefault(contender.name, []).append(result)
            print(f"round {number}/{options.rounds}  {contender.name:40} {result}", file=sys.stderr, flush=True)
    return results


def summary(results: Results) -> str:
    """Medians over the rounds, and the ratio to the bare loop of the same kind."""
    rows: list[list[object]] = []
    for name, runs in results.items():
        base = BASE_ALONE if name.endswith("one at a time") else BASE
        rate, of_base = (median([run["sagas_per_second"] for run in results[n]]) for n in (name, base))
        others = (median([run[key] for run in runs]) for key in _SHOWN)
        rows.append([name, rate, f"{rate / of_base:.2f}", *others])
    header = ["sagas", "sagas/s", "ratio to bare", "p50 ms", "p99 ms", "CPU µs/saga", "CPU µs/command"]
    return markdown(header, rows)


def main() -> None:
    """Parse, run, print a table; JSON beside it with --json FILE."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--amqp", default=os.environ.get("SAGASMITH_TEST_AMQP_URL", ""))
    parser.add_argument("--postgres", default=os.environ.get("SAGASMITH_TEST_POSTGRES_URL", ""))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sagas", type=int, default=3000)
    parser.add_argument(
        "--peers", action="store_true", help="other people's engines too, each in an environment of its own"
    )
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    if not (options.amqp and options.postgres):
        parser.error("name the services with --amqp and --postgres, or run: make bench")
    results, times = run_all(options), starting_times(options.rounds)
    machine = f"Python {platform.python_version()}, {os.cpu_count()} cores, " + ", ".join(
        f"{name} {version(name)}" for name in _VERSIONS
    )
    started = markdown(["from nothing to", "ms"], [[name, median(taken)] for name, taken in times.items()])
    print(f"{summary(results)}\n\n{started}\n\nmedians of {options.rounds} rounds; {machine}")
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"machine": machine, "rounds": results, "starting_ms": times}, file, indent=1)


if __name__ == "__main__":
    main()
