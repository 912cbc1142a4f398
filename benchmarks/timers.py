"""A thousand timers a second: how late each is taken on, and what it costs, on PostgreSQL and on SQLite.

    python -m benchmarks.timers --postgres postgresql://...   # or: --per-second 2000 --seconds 10

Sagas of one `Delay` are started and taken on beforehand, with instants of which so many fall due in each second.
Lag is from the instant to the commit that ends the saga. A deadline of a command or of a wait is taken on by the
same look at the same index. The engine runs alone in this process; the processor time is this process's.
"""

from __future__ import annotations

import asyncio
import logging
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from pydantic import BaseModel, SecretStr

from benchmarks.numbers import Cpu, markdown, percentile
from benchmarks.report import parsed, parser_of, report, told
from messaging.serving import collect_rarely
from messaging.settings import MessagingSettings
from orchestrator import Delay, Orchestrator, Saga, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.starting_many import start_sagas
from orchestrator.start import new_instance
from orchestrator.watching import Change, Watcher
from tests.support.databases import fresh_database

_AT_ONCE: Final = 500
_GIVE_UP_AFTER: Final = 60.0


class Appointment(BaseModel):
    at: datetime


class Resting(Delay[Appointment]):
    def until(self, state: Appointment) -> datetime:
        return state.at


class OneTimer(Saga[Appointment]):
    steps = (Resting(),)


class Fired(Watcher):
    """Counts the timers that are waited for, and how late those were that have ended, in seconds."""

    def __init__(self, timers: int) -> None:
        self._timers = timers
        self.set = 0
        self.lags: list[float] = []
        self.all_set, self.all_fired = asyncio.Event(), asyncio.Event()

    def committed(self, changes: Sequence[Change]) -> None:
        """A transaction has committed."""
        now = datetime.now(UTC)
        for change in changes:
            if not change.after.status.terminal:
                self.set += 1
            for step in change.before.steps.values():
                assert step.deadline is not None
                self.lags.append((now - step.deadline).total_seconds())
        if self.set >= self._timers:
            self.all_set.set()
        if len(self.lags) >= self._timers:
            self.all_fired.set()


async def started(url: str, first: datetime, options: Namespace) -> None:
    """Start all of them, so many due in each second from the first on."""
    engine, timers = connect(url, ConnectionSettings()), options.per_second * options.seconds
    now = datetime.now(UTC)
    for begin in range(0, timers, _AT_ONCE):
        due = [first + timedelta(seconds=n / options.per_second) for n in range(begin, min(begin + _AT_ONCE, timers))]
        sagas = [new_instance(OneTimer, Appointment(at=instant), None, "", now) for instant in due]
        async with engine.begin() as connection:
            await connection.run_sync(start_sagas, sagas, schema=None)
    await engine.dispose()


async def measure(name: str, url: str, options: Namespace) -> dict[str, float]:
    """Start the timers, have them taken on, and wait until each has fired."""
    timers = options.per_second * options.seconds
    first = datetime.now(UTC) + timedelta(seconds=options.ahead or 5 + timers / 400)
    await started(url, first, options)
    app, fired = Orchestrator([OneTimer]), Fired(timers)
    app.use(fired)
    settings = OrchestratorSettings(database_url=SecretStr(url))
    async with running(app, settings=settings, messaging=MessagingSettings()):
        await asyncio.wait_for(fired.all_set.wait(), _GIVE_UP_AFTER + timers / 100)
        if fired.lags:
            raise SystemExit(f"{name}: the first were due before the last was set; give --ahead more seconds")
        told(f"{name}: {timers} timers are set")
        await asyncio.sleep((first - datetime.now(UTC)).total_seconds())
        cpu, begun = Cpu(), time.perf_counter()
        await asyncio.wait_for(fired.all_fired.wait(), options.seconds + _GIVE_UP_AFTER)
        micros, seconds = cpu.micros(), time.perf_counter() - begun
    lags = sorted(lag * 1000 for lag in fired.lags)
    taken = {f"p{share}_ms": round(percentile(lags, share), 1) for share in (50, 99)}
    measured = {
        "timers": timers,
        "seconds": round(seconds, 1),
        **taken,
        "max_ms": round(lags[-1], 1),
        "cpu_us_per_timer": round(micros / timers),
    }
    told(f"{name}: {measured}")
    return measured


async def on_each(options: Namespace) -> dict[str, dict[str, float]]:
    """Measure on both databases, one after the other."""
    measured: dict[str, dict[str, float]] = {}
    with fresh_database(options.postgres) as url:
        await asyncio.to_thread(upgrade, url)
        measured["PostgreSQL"] = await measure("PostgreSQL", url, options)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite+aiosqlite:///{Path(folder) / 'timers.db'}"
        await asyncio.to_thread(upgrade, url)
        measured["SQLite"] = await measure("SQLite", url, options)
    return measured


def table(measured: dict[str, dict[str, float]]) -> str:
    """A row for each database."""
    header = ["timers on", "timers", "all fired within s", "lag p50 ms", "p99 ms", "max ms", "CPU µs/timer"]
    return markdown(header, [[name, *figures.values()] for name, figures in measured.items()])


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "postgres")
    parser.add_argument("--per-second", type=int, default=1000, help="timers that fall due in each second")
    parser.add_argument("--seconds", type=int, default=30)
    parser.add_argument("--ahead", type=float, default=0.0, help="seconds to set them in before the first falls due")
    options = parsed(parser)
    collect_rarely()  # as a process that serves does
    measured = asyncio.run(on_each(options))
    report(options, table(measured), {"timers": measured})


if __name__ == "__main__":
    main()
