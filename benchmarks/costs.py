"""What a saga costs each part: orchestrator, participants, broker and database server; log written, messages, commits.

    python -m benchmarks.costs                            # or: --rounds 1 --sagas 600

On a RabbitMQ and a PostgreSQL of its own, which it starts from the installed programs: so all their processor time and
all the log is these sagas'. What the servers use while nothing runs is measured before and taken off.
`benchmarks.scaling` computes with these figures.
"""

from __future__ import annotations

import asyncio
import logging
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import uuid4

import psycopg
from pydantic import SecretStr

from benchmarks.beside import beside, bus_settings
from benchmarks.ends import Ends
from benchmarks.numbers import markdown, median, seconds_of
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.saga_run import closed_loop
from benchmarks.workloads import orchestrator
from messaging.errors import PublishError
from messaging.serving import collect_rarely
from messaging.transport import Delivery, Outgoing
from orchestrator import running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.watching import nothing
from tests.support.databases import fresh_database
from tests.support.private import PrivatePostgres, PrivateRabbit, PrivateServer
from tests.support.processes import process_tree

_LOG: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint"
_WARMING: Final = 200


class Servers(NamedTuple):
    """Those that are measured."""

    broker: PrivateServer
    database: PrivateServer

    def counts(self) -> Counts:
        """What they have used, and what the database server tells of itself."""
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            row = connection.execute(_LOG).fetchone()
        assert row is not None
        return Counts(micros_of(self.broker), micros_of(self.database), float(row[0]))


class Counts(NamedTuple):
    """Since the servers were started."""

    broker_us: float
    database_us: float
    wal_bytes: float

    def less(self, other: Counts, times: float = 1.0) -> Counts:
        """What has been added, or what is left without so many times the other."""
        return Counts(*(mine - theirs * times for mine, theirs in zip(self, other, strict=True)))


def micros_of(server: PrivateServer) -> float:
    """Processor time of all its processes, and of those that have ended."""
    assert server.pid is not None
    seconds = 0.0
    for pid in process_tree(server.pid):
        with suppress(OSError):  # it has ended just now; its parent has its time
            seconds += seconds_of(pid, with_children=True)
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


async def measure(options: Namespace, servers: Servers, url: str, *, coalesced: bool) -> dict[str, float]:
    """Run a closed loop, and read all counters before and after."""
    amqp, prefix = servers.broker.url, f"bench-{uuid4().hex[:8]}."
    process = Namespace(broker=amqp, prefix=prefix, database=url, coalesced=coalesced)
    engine, app, traffic = connect(url, ConnectionSettings()), orchestrator(), Traffic()
    app.use(traffic)
    settings = OrchestratorSettings(database_url=SecretStr(url))
    messaging = bus_settings(amqp, prefix, coalesced=coalesced)
    async with beside("participants", process) as pid, running(app, settings=settings, messaging=messaging):
        await closed_loop(engine, traffic, Namespace(saga="three-steps", sagas=_WARMING, in_flight=_WARMING))
        await asyncio.sleep(1.0)
        at_rest, begun = await asyncio.to_thread(servers.counts), time.perf_counter()
        await asyncio.sleep(options.rest)
        before, rested = await asyncio.to_thread(servers.counts), time.perf_counter() - begun
        ours, theirs, messages = time.process_time(), seconds_of(pid), traffic.messages
        load = Namespace(saga="three-steps", sagas=options.sagas, in_flight=200)
        seconds = await closed_loop(engine, traffic, load)
        used = await asyncio.to_thread(servers.counts)
        ours, theirs = time.process_time() - ours, seconds_of(pid) - theirs
        messages = traffic.messages - messages
    await engine.dispose()
    of_servers = used.less(before).less(before.less(at_rest), seconds / rested)
    per_saga = {
        "orchestrator_us": ours * 1e6,
        "participants_us": theirs * 1e6,
        **of_servers._asdict(),
        "messages": messages,
    }
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        **{name: round(value / options.sagas, 2) for name, value in per_saga.items()},
    }


def rounds(options: Namespace) -> dict[str, list[dict[str, float]]]:
    """Round after round, plain and coalesced in turns, each on a database and queues of its own."""
    results: dict[str, list[dict[str, float]]] = {"one message per command": [], "coalesced": []}
    with PrivateRabbit() as broker, PrivatePostgres() as database:
        for number in range(1, options.rounds + 1):
            for name, runs in results.items():
                with fresh_database(database.url) as url:
                    upgrade(url)
                    servers = Servers(broker, database)
                    runs.append(asyncio.run(measure(options, servers, url, coalesced=name == "coalesced")))
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
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sagas", type=int, default=5000)
    parser.add_argument("--rest", type=float, default=5.0, help="seconds in which nothing runs, to be taken off")
    options = parsed(parser)
    collect_rarely()  # as a process that serves does
    results = rounds(options)
    report(options, table(results), {"costs": results})


if __name__ == "__main__":
    main()
