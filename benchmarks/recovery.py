"""How soon commands leave that nobody has sent: an orchestrator starts on a database with a hundred thousand of them.

    python -m benchmarks.recovery --amqp amqp://... --postgres postgresql://...   # or: --unsent 20000 --rounds 1

Seconds are from the start of the process, its interpreter and imports included. The broker is asked how many
messages are in the queue, from which nobody consumes; the peak is of the orchestrator's resident memory.
"""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import Namespace
from uuid import uuid4

from benchmarks.beside import beside
from benchmarks.numbers import markdown, median, memory_of
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.unanswered import Mailbox, mailbox, unsent, written
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from tests.support.databases import fresh_database

_SHOWN = ("ready_s", "first_s", "all_s", "marked_s", "copies", "peak_mib")


async def measure(options: Namespace, url: str) -> dict[str, float]:
    """Write the commands, start an orchestrator, and watch them come."""
    prefix = f"bench-{uuid4().hex[:8]}."
    await written(url, options.unsent, begun=True)
    told(f"{options.unsent:,} unsent commands are written")
    async with mailbox(options.amqp, prefix) as box:
        process = Namespace(broker=options.amqp, prefix=prefix, database=url, coalesced=False)
        return await _watched(options, process, box)


async def _watched(options: Namespace, process: Namespace, box: Mailbox) -> dict[str, float]:
    begun = time.perf_counter()
    first = asyncio.create_task(box.until(1, every=0.005, give_up_after=options.give_up_after))
    engine = connect(process.database, ConnectionSettings())
    try:
        async with beside("orchestrator", process) as pid:
            ready = time.perf_counter()
            instants = [ready, await first]
            instants.append(await box.until(options.unsent, every=0.1, give_up_after=options.give_up_after))
            while await unsent(engine):
                if time.perf_counter() > begun + options.give_up_after:
                    raise SystemExit(f"{await unsent(engine)} commands are not marked as sent")
                await asyncio.sleep(0.1)
            instants.append(time.perf_counter())
            peak = memory_of(pid).peak
            copies = await box.depth() - options.unsent
    finally:
        first.cancel()
        await engine.dispose()
    seconds = dict(zip(_SHOWN, (round(instant - begun, 2) for instant in instants), strict=False))
    return {**seconds, "copies": copies, "peak_mib": round(peak, 1)}


def rounds(options: Namespace) -> list[dict[str, float]]:
    """Each on a database and queues of its own."""
    results: list[dict[str, float]] = []
    for number in range(1, options.rounds + 1):
        with fresh_database(options.postgres) as url:
            upgrade(url)
            results.append(asyncio.run(measure(options, url)))
        told(f"round {number}/{options.rounds}: {results[-1]}")
    return results


def table(options: Namespace, results: list[dict[str, float]]) -> str:
    """Medians."""
    header = ["unsent commands", "ready s", "first at the broker s", "all s", "all marked s", "copies", "peak MiB"]
    return markdown(header, [[f"{options.unsent:,}", *(median([one[key] for one in results]) for key in _SHOWN)]])


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "amqp", "postgres")
    parser.add_argument("--unsent", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--give-up-after", type=float, default=300.0, metavar="SECONDS")
    options = parsed(parser)
    results = rounds(options)
    report(options, table(options, results), {"recovery": results})


if __name__ == "__main__":
    main()
