"""What deleting ended sagas costs those that run: the same load, in turns with and without a purge beside it.

python -m benchmarks.purging --postgres postgresql://...   # or: --ended 20000 --seconds 3 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
from argparse import Namespace
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from benchmarks.ends import Ends
from benchmarks.numbers import markdown
from benchmarks.saga_run import closed_loop
from benchmarks.workloads import SERVICES, orchestrator
from messaging.settings import MessagingSettings
from orchestrator import SagaStatus, running
from orchestrator.purging import Purger
from orchestrator.retention import Retention
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql import SqlStore
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.purging import ended
from orchestrator.watching import Change
from tests.support.databases import fresh_database

KEPT = timedelta(days=30)
_ENDED = """
    INSERT INTO saga_instance (id, name, version, fingerprint, business_key, status, state, revision, seq,
                               started_at, updated_at, ended_at)
    SELECT md5('saga' || n)::uuid, 'three-steps', 1, 'f', 'old-' || n, 'completed', repeat('x', 300), 5, 3,
           at, at, at FROM (SELECT n, now() - interval '60 days' + n * interval '1 second' AS at
                            FROM generate_series(1, :ended) n) old
"""
_STEPS = """
    INSERT INTO saga_step (saga_id, step, direction, branch, seq, status, wire_name, participant, round, attempt,
                           tries, unanswered, command_id, body, reply, sent_at, started_at, updated_at, ended_at)
    SELECT md5('saga' || n)::uuid, 'Step' || s, 'action', '', s, 'succeeded', 'order', 'stock', 1, 1, 1, 0,
           md5('command' || n || '-' || s)::uuid, repeat('x', 200), repeat('y', 100), now(), now(), now(), now()
    FROM generate_series(1, :ended) n, generate_series(1, 3) s
"""
_KEYS = """
    INSERT INTO saga_key (name, business_key, saga_id, created_at)
    SELECT 'three-steps', 'old-' || n, md5('saga' || n)::uuid, now() FROM generate_series(1, :ended) n
"""


def arguments() -> Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", default=os.environ.get("SAGASMITH_TEST_POSTGRES_URL", ""))
    parser.add_argument("--ended", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long one turn lasts")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--rate", type=float, default=500.0, help="deleted in a second, at most")
    options = parser.parse_args()
    if not options.postgres:
        parser.error("name a server with --postgres")
    return options


async def filled(engine: AsyncEngine, number: int) -> None:
    """Write so many sagas of three steps that ended long ago."""
    async with engine.begin() as connection:
        for statement in (_ENDED, _STEPS, _KEYS):
            await connection.execute(text(statement), {"ended": number})
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE"))


async def plan(engine: AsyncEngine) -> str:
    """How the database finds what may go."""
    found = ended(SagaStatus.COMPLETED, datetime.now(UTC) - KEPT, None, 100).with_for_update(skip_locked=True)
    compiled = found.compile(dialect=engine.dialect)
    values = tuple(compiled.params[name] for name in compiled.positiontup or ())
    async with engine.connect() as connection:
        rows = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF) {compiled}", values)
        return "\n".join(row[0] for row in rows)


class Progress(Ends):
    """Counts what happens to sagas, step by step: they end in waves."""

    def __init__(self) -> None:
        super().__init__()
        self.changes = 0

    def committed(self, changes: Sequence[Change]) -> None:
        """A transaction has committed."""
        self.changes += len(changes)
        super().committed(changes)


class Gated:
    """A purge that goes on only while it may."""

    def __init__(self, purger: Purger) -> None:
        self._purger = purger
        self.may = asyncio.Event()
        self.deleted = 0

    async def run(self) -> None:
        """Until all are deleted."""
        async for purged in self._purger.run():
            self.deleted += purged.sagas.total()
            await self.may.wait()


@asynccontextmanager
async def loaded(options: Namespace, engine: AsyncEngine, url: str) -> AsyncGenerator[Progress]:
    """An orchestrator with its participants, under a steady load."""
    app, ends = orchestrator(), Progress()
    app.use(ends)
    settings = OrchestratorSettings(database_url=SecretStr(url))
    async with running(app, *SERVICES, settings=settings, messaging=MessagingSettings()):
        endless = Namespace(saga="three-steps", sagas=10**9, in_flight=options.in_flight)
        load = asyncio.create_task(closed_loop(engine, ends, endless))
        try:
            yield ends
        finally:
            if load.done():
                load.result()  # raises what ended it
            load.cancel()
            await asyncio.gather(load, return_exceptions=True)


async def measure(options: Namespace, url: str) -> str:
    """Run it; tell in words."""
    engine = connect(url, ConnectionSettings())
    await filled(engine, options.ended)
    told = await plan(engine)
    store = SqlStore(connect(url, ConnectionSettings(pool_size=1)), runs_engine=False)
    gated = Gated(Purger(store, Retention({SagaStatus.COMPLETED: KEPT}), per_second=options.rate))
    without, beside = 0.0, 0.0
    async with loaded(options, engine, url) as ends:
        await asyncio.sleep(options.seconds)  # the first turn warms up
        work = asyncio.create_task(gated.run())
        for _ in range(options.rounds):
            without += await _turn(ends, options.seconds)
            gated.may.set()
            beside += await _turn(ends, options.seconds)
            gated.may.clear()
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    await store.engine.dispose()
    await engine.dispose()
    rate = gated.deleted / (options.rounds * options.seconds)
    row = [f"{options.ended:,}", f"{gated.deleted:,}", f"{rate:,.0f}", f"{beside / without:.2f}"]
    table = markdown(["ended sagas", "deleted", "a second", "steps of live sagas, with / without"], [row])
    return f"{table}\n\n{told}"


async def _turn(live: Progress, seconds: float) -> float:
    """Steps a second."""
    before, began = live.changes, asyncio.get_running_loop().time()
    await asyncio.sleep(seconds)
    return (live.changes - before) / (asyncio.get_running_loop().time() - began)


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    options = arguments()
    with fresh_database(options.postgres) as url:
        upgrade(url)
        print(asyncio.run(measure(options, url)))


if __name__ == "__main__":
    main()
