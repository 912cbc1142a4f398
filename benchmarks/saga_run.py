"""One measured run in a process of its own: a closed loop of sagas; prints one JSON line.

python -m benchmarks.saga_run embedded --sagas 2000 --in-flight 200
python -m benchmarks.saga_run distributed --database postgresql+asyncpg://... --broker amqp://...
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks import three_steps
from benchmarks.numbers import Cpu, percentile
from messaging.settings import MessagingSettings
from orchestrator import nudge, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.starting import start_saga_async
from orchestrator.start import new_instance
from orchestrator.watching import Change, Watcher

_GIVE_UP_AFTER = 60.0


def arguments() -> argparse.Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", choices=["embedded", "distributed"])
    parser.add_argument("--sagas", type=int, default=2000)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--database", default="")
    parser.add_argument("--broker", default="memory://")
    parser.add_argument("--prefix", default="bench.")
    return parser.parse_args()


@asynccontextmanager
async def participants(options: argparse.Namespace) -> AsyncGenerator[int]:
    """The three services in a process of their own, when there is a broker between; gives its id."""
    command = [sys.executable, "-m", "benchmarks.participants", options.broker, options.prefix]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process.pid
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)


class Ends(Watcher):
    """Counts the sagas that have ended, and wakes whoever waits for more."""

    def __init__(self) -> None:
        self.count = 0
        self.more = asyncio.Event()

    def committed(self, changes: Sequence[Change]) -> None:
        """A transaction has committed."""
        ended = sum(change.after.status.terminal for change in changes)
        if ended:
            self.count += ended
            self.more.set()


async def closed_loop(engine: AsyncEngine, ends: Ends, sagas: int, in_flight: int) -> float:
    """Start sagas so that this many are open at a time, until all have ended; return the seconds."""
    begun, started = time.perf_counter(), 0
    while ends.count < sagas:
        room = min(in_flight - (started - ends.count), sagas - started)
        if room > 0:
            async with engine.begin() as connection:
                for number in range(started, started + room):
                    now = datetime.now(UTC)
                    instance = new_instance(three_steps.ThreeSteps, three_steps.order(number), None, "", now)
                    await start_saga_async(connection, instance)
            started += room
            nudge.nudge()
        try:
            async with asyncio.timeout(_GIVE_UP_AFTER):
                await ends.more.wait()
        except TimeoutError:
            raise SystemExit(f"stuck: {ends.count} of {started} sagas ended") from None
        ends.more.clear()
    return time.perf_counter() - begun


async def latencies(engine: AsyncEngine) -> list[float]:
    """Milliseconds from start to end of each saga, as the rows tell."""
    async with engine.connect() as connection:
        rows = (await connection.execute(text("SELECT status, started_at, ended_at FROM saga_instance"))).all()
    wrong = [row.status for row in rows if row.status != "completed"]
    if wrong:
        raise SystemExit(f"{len(wrong)} sagas did not complete: {set(wrong)}")
    return sorted((_instant(row.ended_at) - _instant(row.started_at)).total_seconds() * 1000 for row in rows)


def _instant(value: datetime | str) -> datetime:
    return datetime.fromisoformat(value) if isinstance(value, str) else value


async def measure(options: argparse.Namespace) -> dict[str, float | str]:
    """Run it."""
    settings = OrchestratorSettings(database_url=SecretStr(options.database))
    messaging = MessagingSettings(broker_url=SecretStr(options.broker), prefix=options.prefix)
    embedded = options.mode == "embedded"
    targets = (three_steps.app, three_steps.stock, three_steps.cards, three_steps.shipping)
    engine = connect(options.database, ConnectionSettings())
    three_steps.app.use(ends := Ends())
    try:
        if embedded:
            async with running(*targets, settings=settings, messaging=messaging):
                cpu = Cpu()
                seconds = await closed_loop(engine, ends, options.sagas, options.in_flight)
                micros = cpu.micros()
        else:
            async with (
                participants(options) as beside,
                running(three_steps.app, settings=settings, messaging=messaging),
            ):
                cpu = Cpu(beside)
                seconds = await closed_loop(engine, ends, options.sagas, options.in_flight)
                micros = cpu.micros()
        took = await latencies(engine)
    finally:
        await engine.dispose()
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        "p50_ms": round(percentile(took, 50), 1),
        "p99_ms": round(percentile(took, 99), 1),
        "cpu_us_per_saga": round(micros / options.sagas),
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
