"""One measured run in a process of its own: a loop of sagas; prints one JSON line.

python -m benchmarks.saga_run embedded --sagas 2000 --in-flight 200
python -m benchmarks.saga_run embedded --sagas 2000 --rate 150        # an open loop: a start every 1/150 s
python -m benchmarks.saga_run distributed --database postgresql+asyncpg://... --broker amqp://... --saga refused
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import tempfile
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.beside import beside, bus_settings
from benchmarks.ends import Ends
from benchmarks.numbers import Cpu, percentile
from benchmarks.workloads import SERVICES, WORKLOADS, Workload, orchestrator
from messaging.serving import collect_rarely
from orchestrator import nudge, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.starting_many import start_sagas
from orchestrator.start import new_instance

_GIVE_UP_AFTER = 60.0
_WARMING = 200


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=["embedded", "distributed"])
    parser.add_argument("--saga", choices=list(WORKLOADS), default="three-steps")
    parser.add_argument("--sagas", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--rate", type=float, default=0.0, help="start so many a second, however many are open")
    parser.add_argument("--orchestrators", type=int, choices=[1, 2], default=1)
    parser.add_argument("--coalesced", action="store_true", help="commands and answers up to 50 in one message")
    parser.add_argument("--database", default="")
    parser.add_argument("--broker", default="memory://")
    parser.add_argument("--prefix", default="bench.")
    return parser.parse_args()


async def closed_loop(engine: AsyncEngine, ends: Ends, options: argparse.Namespace) -> float:
    """Start sagas so that this many are open at a time, until all have ended; return the seconds."""
    workload, sagas, ended_before = WORKLOADS[options.saga], options.sagas, ends.count
    begun, started = time.perf_counter(), 0
    while (ended := ends.count - ended_before) < sagas:
        room = min(options.in_flight - (started - ended), sagas - started)
        if room > 0:
            await start(engine, workload, ((n, datetime.now(UTC)) for n in range(started, started + room)))
            started += room
        await one_more(ends, started + ended_before)
    return time.perf_counter() - begun


async def open_loop(engine: AsyncEngine, ends: Ends, options: argparse.Namespace) -> float:
    """Start sagas at a fixed pace, whatever becomes of them, until all have ended; return the seconds.

    Each counts from the instant at which it was to be started: a start that is late makes its saga slow.
    """
    workload, sagas, ended_before = WORKLOADS[options.saga], options.sagas, ends.count
    begun, first, started = time.perf_counter(), datetime.now(UTC), 0
    while started < sagas:
        due = min(int((time.perf_counter() - begun) * options.rate) + 1, sagas)
        await start(engine, workload, ((n, first + timedelta(seconds=n / options.rate)) for n in range(started, due)))
        started = due
        await asyncio.sleep(max(begun + started / options.rate - time.perf_counter(), 0))
    while ends.count < ended_before + sagas:
        await one_more(ends, started + ended_before)
    return time.perf_counter() - begun


async def start(engine: AsyncEngine, workload: Workload, instants: Iterable[tuple[int, datetime]]) -> None:
    """Start the sagas of these numbers in one transaction, each as of its instant."""
    sagas = [new_instance(workload.saga, workload.state(number), None, "", instant) for number, instant in instants]
    async with engine.begin() as connection:
        await connection.run_sync(start_sagas, sagas, schema=None)
    nudge.nudge()


async def one_more(ends: Ends, started: int) -> None:
    """Wait until another saga has ended.

    Raises:
        SystemExit: none has for a minute.
    """
    try:
        async with asyncio.timeout(_GIVE_UP_AFTER):
            await ends.more.wait()
    except TimeoutError:
        raise SystemExit(f"stuck: {ends.count} of {started} sagas ended") from None
    ends.more.clear()


async def warmed_up(engine: AsyncEngine, ends: Ends, options: argparse.Namespace) -> None:
    """Run some sagas that are not counted: what is made the first time is no latency of a steady load."""
    some = argparse.Namespace(saga=options.saga, sagas=_WARMING, in_flight=_WARMING)
    await closed_loop(engine, ends, some)


async def latencies(engine: AsyncEngine, workload: Workload, sagas: int) -> list[float]:
    """Milliseconds from start to end of each of the last so many sagas of its kind, as the rows tell."""
    last = "SELECT status, started_at, ended_at FROM saga_instance WHERE name = :name ORDER BY id DESC LIMIT :sagas"
    async with engine.connect() as connection:
        rows = (await connection.execute(text(last), {"name": workload.saga.name, "sagas": sagas})).all()
    wrong = {row.status for row in rows if row.status != workload.ends}
    if wrong:
        raise SystemExit(f"sagas did not end {workload.ends}: {wrong}")
    return sorted((_instant(row.ended_at) - _instant(row.started_at)).total_seconds() * 1000 for row in rows)


def _instant(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """Run it."""
    settings = OrchestratorSettings(database_url=SecretStr(options.database))
    messaging = bus_settings(options.broker, options.prefix, coalesced=options.coalesced)
    engine = connect(options.database, ConnectionSettings())
    app, ends, others = orchestrator(), Ends(), list[int]()
    app.use(ends)
    try:
        async with AsyncExitStack() as stack:
            services = SERVICES if options.mode == "embedded" else ()
            if not services:
                others.append(await stack.enter_async_context(beside("participants", options)))
            await stack.enter_async_context(running(app, *services, settings=settings, messaging=messaging))
            if options.orchestrators == 2:
                others.append(await stack.enter_async_context(beside("orchestrator", options, ends.add)))
            collect_rarely()
            if options.rate:
                await warmed_up(engine, ends, options)
            cpu = Cpu(*others)
            seconds = await (open_loop if options.rate else closed_loop)(engine, ends, options)
            micros = cpu.micros()
        took = await latencies(engine, WORKLOADS[options.saga], options.sagas)
    finally:
        await engine.dispose()
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        "p50_ms": round(percentile(took, 50), 1),
        "p99_ms": round(percentile(took, 99), 1),
        "cpu_us_per_saga": round(micros / options.sagas),
        "cpu_us_per_command": round(micros / options.sagas / WORKLOADS[options.saga].commands),
    }


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        options.database = options.database or f"sqlite+aiosqlite:///{Path(folder) / 'bench.db'}"
        upgrade(options.database)
        print(json.dumps(asyncio.run(measure(options))))


if __name__ == "__main__":
    main()
