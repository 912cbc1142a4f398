"""Latency at half of the highest throughput: first a closed loop tells how much goes through, then an open one runs.

    python -m benchmarks.steady --amqp amqp://... --postgres postgresql://...   # or: --rounds 1 --sagas 600

In the open loop a saga is started every so often, whatever becomes of the others, and its time counts from the
instant at which it was due to be started. Each saga is started in a transaction of its own, or with those that
are late. The last column is what a steady load makes of the median.
"""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from collections.abc import Sequence
from typing import Final
from uuid import uuid4

from benchmarks.__main__ import delete_queues, one_run
from benchmarks.numbers import markdown, median
from benchmarks.report import parsed, parser_of, report, told
from tests.support.databases import fresh_database

KINDS: Final = {
    "RabbitMQ + PostgreSQL": ("distributed",),
    "..., coalesced": ("distributed", "--coalesced"),
    "embedded (memory, SQLite)": ("embedded",),
}
_SHOWN: Final = ("highest_per_second", "in_flight", "pace_per_second", "p50_ms", "p99_ms", "p99_to_p50")


def one(options: Namespace, kind: str, *more: str) -> dict[str, float]:
    """One run on an empty database and queues of its own."""
    mode, *flags = KINDS[kind]
    command = ["benchmarks.saga_run", mode, *flags, *more]
    if mode == "embedded":
        return one_run(command)
    prefix = f"bench-{uuid4().hex[:8]}."
    try:
        with fresh_database(options.postgres) as database:
            return one_run([*command, "--broker", options.amqp, "--prefix", prefix, "--database", database])
    finally:
        asyncio.run(delete_queues(options.amqp, prefix))


def measure(options: Namespace, kind: str) -> dict[str, float]:
    """The highest rate, then latencies at a share of it."""
    rates: dict[int, float] = {}
    for in_flight in options.in_flight:
        amount = ["--sagas", str(max(options.sagas, 2 * in_flight)), "--in-flight", str(in_flight)]
        rates[in_flight] = one(options, kind, *amount)["sagas_per_second"]
        told(f"{kind}: {rates[in_flight]} sagas/s with {in_flight} in flight")
    best = max(rates, key=lambda in_flight: rates[in_flight])
    pace = rates[best] * options.share
    sagas = max(round(pace * options.seconds), 20)
    run = one(options, kind, "--rate", str(pace), "--sagas", str(sagas))
    return {
        "highest_per_second": rates[best],
        "in_flight": best,
        "pace_per_second": round(pace, 1),
        "p50_ms": run["p50_ms"],
        "p99_ms": run["p99_ms"],
        "p99_to_p50": round(run["p99_ms"] / run["p50_ms"], 2),
    }


def rounds(options: Namespace) -> dict[str, list[dict[str, float]]]:
    """Round after round, each kind once a round."""
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(1, options.rounds + 1):
        for kind, runs in results.items():
            runs.append(measure(options, kind))
            told(f"round {number}/{options.rounds}  {kind}: {runs[-1]}")
    return results


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Medians."""
    rows: list[Sequence[object]] = [
        [kind, *(median([run[key] for run in runs]) for key in _SHOWN)] for kind, runs in results.items()
    ]
    return markdown(["sagas", "highest/s", "in flight", "pace/s", "p50 ms", "p99 ms", "p99 / p50"], rows)


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "amqp", "postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sagas", type=int, default=3000, help="of each closed loop")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[100, 200, 500], help="the highest of these counts")
    parser.add_argument("--share", type=float, default=0.5, help="of the highest rate")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the open loop lasts")
    options = parsed(parser)
    results = rounds(options)
    report(options, table(results), {"steady": results})


if __name__ == "__main__":
    main()
