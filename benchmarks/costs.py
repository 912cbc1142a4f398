"""What a saga costs each part: orchestrator, participants, broker and database server; log written, messages, commits.

    python -m benchmarks.costs --amqp amqp://... --postgres postgresql://...   # or: --rounds 1 --sagas 600

The servers' processor time is that of all processes of RabbitMQ and PostgreSQL on this machine (`beam.smp` and
`postgres`), and the log is all that the database server writes: nobody else may use them meanwhile. What they use
while nothing runs is measured before and taken off. `benchmarks.scaling` computes with these figures.
"""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

import psycopg
from pydantic import SecretStr

from benchmarks.__main__ import delete_queues
from benchmarks.beside import beside, bus_settings
from benchmarks.ends import Ends
from benchmarks.numbers import markdown, median, seconds_of
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.saga_run import closed_loop
from benchmarks.workloads import orchestrator
from messaging.errors import PublishError
from messaging.transport import Delivery, Outgoing
from orchestrator import running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.watching import nothing
from tests.support.databases import fresh_database

_PROGRAMS: Final = ("beam.smp", "postgres")
_STATISTICS: Final = """
    SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint,
        (SELECT xact_commit FROM pg_stat_database WHERE datname = current_database())
"""
_WARMING: Final = 200


class Counts(NamedTuple):
    """Of the two servers, since they were started."""

    broker_us: float
    database_us: float
    wal_bytes: float
    commits: float

    def less(self, other: Counts, times: float = 1.0) -> Counts:
        """What has been added, or what is left without so many times the other."""
        return Counts(*(mine - theirs * times for mine, theirs in zip(self, other, strict=True)))


def counts(database: str) -> Counts:
    """Microseconds of the servers, and what the database server tells of itself."""
    with psycopg.connect(database.replace("+asyncpg", ""), autocommit=True) as connection:
        row = connection.execute(_STATISTICS).fetchone()
    assert row is not None
    return Counts(*(micros_of(program) for program in _PROGRAMS), *map(float, row))


def micros_of(program: str) -> float:
    """Processor time of all processes of this machine that run a program."""
    seconds = 0.0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended just now; its parent has its time
            if (folder / "comm").read_text().strip() == program:
                seconds += seconds_of(int(folder.name), with_children=True)
    return seconds * 1e6


class Traffic(Ends):
    """Counts the commands and the answers, too."""

    def __init__(self) -> None:
        super().__init__()
        self.messages = 0

    def sent(self, messages: Sequence[Outgoing], outcomes: Sequence[PublishError | None]) -> None:
        """Commands have been published."""
        self.messages += len(messages)

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        """Answers are about to be handled."""
        self.messages += len(deliveries)
        return nothing


async def measure(options: Namespace, url: str, prefix: str, *, coalesced: bool) -> dict[str, float]:
    """Run a closed loop, and read all counters before and after."""
    process = Namespace(broker=options.amqp, prefix=prefix, database=url, coalesced=coalesced)
    engine, app, traffic = connect(url, ConnectionSettings()), orchestrator(), Traffic()
    app.use(traffic)
    settings = OrchestratorSettings(database_url=SecretStr(url))
    messaging = bus_settings(options.amqp, prefix, coalesced=coalesced)
    async with beside("participants", process) as pid, running(app, settings=settings, messaging=messaging):
        await closed_loop(engine, traffic, Namespace(saga="three-steps", sagas=_WARMING, in_flight=_WARMING))
        await asyncio.sleep(1.0)
        at_rest, begun = await asyncio.to_thread(counts, url), time.perf_counter()
        await asyncio.sleep(options.rest)
        before, rested = await asyncio.to_thread(counts, url), time.perf_counter() - begun
        ours, theirs, messages = time.process_time(), seconds_of(pid), traffic.messages
        load = Namespace(saga="three-steps", sagas=options.sagas, in_flight=200)
        seconds = await closed_loop(engine, traffic, load)
        used = await asyncio.to_thread(counts, url)
        ours, theirs = time.process_time() - ours, seconds_of(pid) - theirs
        messages = traffic.messages - messages
    await engine.dispose()
    servers = used.less(before).less(before.less(at_rest), seconds / rested)
    per_saga = {
        "orchestrator_us": ours * 1e6,
        "participants_us": theirs * 1e6,
        **servers._asdict(),
        "messages": messages,
    }
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        **{name: round(value / options.sagas, 2) for name, value in per_saga.items()},
    }


def one(options: Namespace, *, coalesced: bool) -> dict[str, float]:
    """One run on an empty database and queues of its own."""
    prefix = f"bench-{uuid4().hex[:8]}."
    try:
        with fresh_database(options.postgres) as url:
            upgrade(url)
            return asyncio.run(measure(options, url, prefix, coalesced=coalesced))
    finally:
        asyncio.run(delete_queues(options.amqp, prefix))


def rounds(options: Namespace) -> dict[str, list[dict[str, float]]]:
    """Round after round, plain and coalesced in turns."""
    results: dict[str, list[dict[str, float]]] = {"one message per command": [], "coalesced": []}
    for number in range(1, options.rounds + 1):
        for name, runs in results.items():
            runs.append(one(options, coalesced=name == "coalesced"))
            told(f"round {number}/{options.rounds}  {name}: {runs[-1]}")
    return results


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Medians, a column for each way of sending."""
    names = list(next(iter(results.values()))[0])
    rows: list[Sequence[object]] = [
        [name, *(median([run[name] for run in runs]) for runs in results.values())] for name in names
    ]
    return markdown(["of a saga of three steps", *results], rows)


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "amqp", "postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sagas", type=int, default=5000)
    parser.add_argument("--rest", type=float, default=5.0, help="seconds in which nothing runs, to be taken off")
    options = parsed(parser)
    results = rounds(options)
    report(options, table(results), {"costs": results})


if __name__ == "__main__":
    main()
