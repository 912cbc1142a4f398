"""What throughput and latency become as sagas grow in number: stored, 10^3 to 10^6, and in flight, 1 to 10,000.

    python -m benchmarks.growth --amqp amqp://... --postgres postgresql://... --json docs/growth.json --svg docs
    python -m benchmarks.growth --drawn-from docs/growth.json --svg docs      # draws what was measured, again

On RabbitMQ and PostgreSQL, sagas of three steps. Stored sagas have ended, as `benchmarks.stored` writes them; each
number of them has a database of its own, on which the rounds take turns with the others and leave their sagas. A
million needs 4 GB of disk.
"""

from __future__ import annotations

import asyncio
import json
import logging
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.__main__ import delete_queues, one_run
from benchmarks.drawing import chart
from benchmarks.numbers import markdown, median
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.stored import filled
from orchestrator.sql.migrate import upgrade
from tests.support.databases import fresh_database

_SHOWN: Final = {"sagas_per_second": "sagas/s", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
_TITLES: Final = {"stored": "stored sagas", "in_flight": "sagas in flight"}

Series = dict[int, dict[str, float]]
"""Medians, by how many there are."""


def one(options: Namespace, database: str, sagas: int, in_flight: int) -> dict[str, float]:
    """One run on queues of its own."""
    prefix = f"bench-{uuid4().hex[:8]}."
    where = ["--broker", options.amqp, "--prefix", prefix, "--database", database]
    try:
        return one_run(
            ["benchmarks.saga_run", "distributed", *where, "--sagas", str(sagas), "--in-flight", str(in_flight)]
        )
    finally:
        asyncio.run(delete_queues(options.amqp, prefix))


def over_stored(options: Namespace) -> Series:
    """The same load on databases with ever more sagas that have ended, in turns."""
    with ExitStack() as stack:
        databases = {number: stack.enter_context(fresh_database(options.postgres)) for number in options.stored}
        for number, url in databases.items():
            told(f"writing {number:,} sagas")
            upgrade(url)
            asyncio.run(_filled(url, number))
        runs: dict[int, list[dict[str, float]]] = {number: [] for number in databases}
        for _ in range(options.rounds):
            for number, url in databases.items():
                runs[number].append(one(options, url, options.sagas, 200))
                told(f"{number:,} stored: {runs[number][-1]}")
    return _medians(runs)


async def _filled(url: str, number: int) -> None:
    engine = create_async_engine(url)
    await filled(engine, Namespace(ended=number, live=0))
    await engine.dispose()


def over_in_flight(options: Namespace) -> Series:
    """Ever more sagas open at a time, each number on an empty database, in turns."""
    runs: dict[int, list[dict[str, float]]] = {number: [] for number in options.in_flight}
    for _ in range(options.rounds):
        for number, of_number in runs.items():
            # Few at a time go through slowly; of many each place is to be taken some times.
            sagas = min(max(options.sagas, 2 * number), 50 * number + 50)
            with fresh_database(options.postgres) as url:
                of_number.append(one(options, url, sagas, number))
            told(f"{number:,} in flight: {of_number[-1]}")
    return _medians(runs)


def _medians(runs: dict[int, list[dict[str, float]]]) -> Series:
    return {number: {key: median([run[key] for run in some]) for key in _SHOWN} for number, some in runs.items()}


def tables(measured: dict[str, Series]) -> str:
    """One for what is stored, one for what is in flight."""
    shown: list[str] = []
    for what, series in measured.items():
        rows: list[Sequence[object]] = [[f"{number:,}", *one.values()] for number, one in series.items()]
        shown.append(markdown([_TITLES[what], *_SHOWN.values()], rows))
    return "\n\n".join(shown)


def drawn(measured: dict[str, Series], folder: Path) -> list[Path]:
    """Draw each as `growth-*.svg`; returns the files."""
    files: list[Path] = []
    for what, series in measured.items():
        lines = {name: [(number, one[key]) for number, one in series.items()] for key, name in _SHOWN.items()}
        files.append(folder / f"growth-{what.replace('_', '-')}.svg")
        files[-1].write_text(chart(f"Three-step sagas, over {_TITLES[what]}", _TITLES[what], lines))
    return files


def read(file: str) -> dict[str, Series]:
    """What was measured before."""
    growth: dict[str, Any] = json.loads(Path(file).read_text())["growth"]
    return {what: {int(number): one for number, one in series.items()} for what, series in growth.items()}


def main() -> None:
    """Parse, run, print, draw."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "amqp", "postgres")
    parser.add_argument("--stored", type=int, nargs="*", default=[10**3, 10**4, 10**5, 10**6])
    parser.add_argument("--in-flight", type=int, nargs="*", default=[1, 10, 100, 1000, 10_000])
    parser.add_argument("--sagas", type=int, default=3000, help="in a run, at least; of few in flight fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--svg", default="", metavar="FOLDER", help="where to draw it")
    parser.add_argument("--drawn-from", default="", metavar="FILE", help="measure nothing: what --json has written")
    options = parsed(parser, alone="drawn_from")
    if options.drawn_from:
        measured = read(options.drawn_from)
    else:
        each = {"stored": over_stored, "in_flight": over_in_flight}
        measured = {what: over(options) for what, over in each.items() if getattr(options, what)}
        report(options, tables(measured), {"growth": measured})
    for file in drawn(measured, Path(options.svg)) if options.svg else ():
        told(f"drawn: {file}")


if __name__ == "__main__":
    main()
