"""What an orchestrator holds in memory while sagas wait for replies that do not come: none, ten, a hundred thousand.

    python -m benchmarks.memory --amqp amqp://... --postgres postgresql://...   # or: --in-flight 0 1000 10000

Each time a fresh orchestrator takes on so many new sagas and sends their commands, then rests for some seconds with
all of them in flight. Resident memory is that of its process, with all its libraries.
"""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import Namespace
from collections.abc import Sequence
from uuid import uuid4

from benchmarks.beside import beside
from benchmarks.numbers import markdown, memory_of
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.unanswered import mailbox, unsent, written
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from tests.support.databases import fresh_database


async def measure(options: Namespace, url: str, in_flight: int) -> dict[str, float]:
    """Have so many in flight, and read the memory at the end of the rest."""
    prefix = f"bench-{uuid4().hex[:8]}."
    await written(url, in_flight, begun=False)
    engine = connect(url, ConnectionSettings())
    async with mailbox(options.amqp, prefix) as box:
        process = Namespace(broker=options.amqp, prefix=prefix, database=url, coalesced=False)
        async with beside("orchestrator", process) as pid:
            begun = time.perf_counter()
            await box.until(in_flight, every=0.2, give_up_after=options.give_up_after)
            while await unsent(engine):
                if time.perf_counter() > begun + options.give_up_after:
                    raise SystemExit(f"{await unsent(engine)} commands are not marked as sent")
                await asyncio.sleep(0.2)
            taken = time.perf_counter() - begun
            await asyncio.sleep(options.rest)
            memory = memory_of(pid)
    await engine.dispose()
    measured = {"taken_on_s": round(taken, 1), "now_mib": round(memory.now, 1), "peak_mib": round(memory.peak, 1)}
    told(f"{in_flight:,} in flight: {measured}")
    return measured


def each(options: Namespace) -> dict[int, dict[str, float]]:
    """One after the other, each on a database and queues of its own."""
    measured: dict[int, dict[str, float]] = {}
    for in_flight in options.in_flight:
        with fresh_database(options.postgres) as url:
            upgrade(url)
            measured[in_flight] = asyncio.run(measure(options, url, in_flight))
    return measured


def table(measured: dict[int, dict[str, float]]) -> str:
    """A row for each number; the ratio is that of the memory at rest to the first row's."""
    base = next(iter(measured.values()))["now_mib"]
    rows: list[Sequence[object]] = [
        [f"{in_flight:,}", *one.values(), f"{one['now_mib'] / base:.2f}"] for in_flight, one in measured.items()
    ]
    return markdown(["sagas in flight", "taken on within s", "MiB at rest", "peak MiB", "ratio at rest"], rows)


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "amqp", "postgres")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[0, 10_000, 100_000])
    parser.add_argument("--rest", type=float, default=10.0, help="seconds with all of them in flight")
    parser.add_argument("--give-up-after", type=float, default=400.0, metavar="SECONDS")
    options = parsed(parser)
    measured = each(options)
    report(options, table(measured), {"in_flight": measured})


if __name__ == "__main__":
    main()
