"""What people and engines wait for when a million sagas are stored: reading medians, plans, throughput, disk.

python -m benchmarks.stored --postgres postgresql://...   # or: --ended 100000 --live 10000 --seconds 3
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import Connection, event, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.numbers import markdown, median
from benchmarks.purging import loaded
from orchestrator.failures import failures
from orchestrator.instance import Pin, SagaStatus
from orchestrator.sql.backlog import old_sagas
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.waiting import waiting
from orchestrator.status import SagaFilter, list_sagas, timeline_of
from orchestrator.views import StuckRow, read_view
from orchestrator.web.surveys import Pace, ended_by_hour, pace_of, survey
from tests.support.databases import fresh_database

_ID: Final = """(lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || substr(md5(n::text), 1, 3)
    || '8' || substr(md5(n::text), 4, 15))::uuid"""
_NUMBERED: Final = f"""
    CREATE TEMPORARY TABLE numbered AS
    SELECT n, at, {_ID} AS id, n > :ended ::int AS live, n % 50 = 0 AS undone,
        n > :ended ::int AND n % 100 = 0 AS blocked
    FROM (SELECT n, now() - interval '30 days' * (1 - n / (:ended ::int + :live ::int)::float) AS at
          FROM generate_series(1, :ended ::int + :live ::int) n) numbers
"""
_SAGAS: Final = """
    INSERT INTO saga_instance (id, name, version, fingerprint, business_key, status, state, revision, seq, wake_at,
        current_step, failed_step, error_code, error_text, blocked_reason, blocked_step, blocked_at,
        started_at, updated_at, ended_at)
    SELECT id, 'order-' || n % 5, 1, 'f', 'key-' || n,
        CASE WHEN blocked THEN 'blocked' WHEN live THEN 'running' WHEN undone THEN 'compensated' ELSE 'completed' END,
        '{"customer": "c-' || n % 20000 || '", "note": "' || repeat('x', 200) || '"}', 5, 3,
        CASE WHEN live AND NOT blocked THEN now() + interval '1 hour' END,
        CASE WHEN live THEN 'Step' || n % 3 + 1 ELSE '' END,
        CASE WHEN undone AND NOT live THEN 'Step3' END, CASE WHEN undone AND NOT live THEN 'sold-out' END,
        CASE WHEN undone AND NOT live THEN 'nothing left of ' || n END,
        CASE WHEN blocked THEN 'retries_exhausted' END, CASE WHEN blocked THEN 'Step' || n % 3 + 1 ELSE '' END,
        CASE WHEN blocked THEN now() END, at, at, CASE WHEN NOT live THEN at + interval '2 seconds' END
    FROM numbered
"""
_STEPS: Final = """
    INSERT INTO saga_step (saga_id, step, direction, branch, seq, status, wire_name, participant, round, attempt,
        tries, unanswered, command_id, body, reply, sent_at, error_code, error_text, started_at, updated_at, ended_at,
        awaited_key, waiting_key)
    SELECT id, 'Step' || s, 'action', '', s,
        CASE WHEN live AND s = n % 3 + 1 THEN CASE WHEN blocked THEN 'unknown' ELSE 'waiting' END
             ELSE 'succeeded' END,
        'order', 'stock', 1, 1, 1, 0, md5('command' || n || '-' || s)::uuid, repeat('x', 200), repeat('y', 100), at,
        CASE WHEN blocked AND s = n % 3 + 1 THEN 'timeout' ELSE '' END, '', at, at,
        CASE WHEN NOT live OR s < n % 3 + 1 THEN at END, '',
        CASE WHEN live AND NOT blocked AND s = n % 3 + 1 THEN 'key-' || n END
    FROM numbered, generate_series(1, 3) s WHERE NOT live OR s <= n % 3 + 1
"""
_KEYS: Final = """
    INSERT INTO saga_key (name, business_key, saga_id, created_at)
    SELECT 'order-' || n % 5, 'key-' || n, id, at FROM numbered
"""
_SEARCH: Final = (
    "INSERT INTO saga_search (saga_id, field, value) SELECT id, 'customer', 'c-' || n % 20000 FROM numbered"
)
_FILLING: Final = {"sagas": _SAGAS, "steps": _STEPS, "keys": _KEYS, "searchable fields": _SEARCH}


def arguments() -> Namespace:
    """What to run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--postgres", default=os.environ.get("SAGASMITH_TEST_POSTGRES_URL", ""))
    parser.add_argument("--ended", type=int, default=1_000_000)
    parser.add_argument("--live", type=int, default=100_000)
    parser.add_argument("--times", type=int, default=15, help="each is read so often")
    parser.add_argument("--rounds", type=int, default=3, help="turns of live load on each database")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long one turn lasts")
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--plans", action="store_true", help="print how the database finds it, too")
    options = parser.parse_args()
    if not options.postgres:
        parser.error("name a server with --postgres")
    return options


def told(words: str) -> None:
    """Progress."""
    print(words, file=sys.stderr, flush=True)


async def filled(engine: AsyncEngine, options: Namespace) -> int:
    """Write the sagas; returns how many bytes they take."""
    before = await _size(engine)
    async with engine.connect() as connection:
        await connection.execute(text(_NUMBERED), {"ended": options.ended, "live": options.live})
        for what, statement in _FILLING.items():
            told(f"writing {what} ...")
            await connection.execute(text(statement))
        await connection.commit()
    async with engine.connect() as connection:
        told("VACUUM ANALYZE ...")
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("VACUUM ANALYZE"))
    return await _size(engine) - before


async def _size(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        return int((await connection.execute(text("SELECT pg_database_size(current_database())"))).scalar_one())


def questions(options: Namespace) -> dict[str, Callable[[Connection], Any]]:
    """What people ask, as the dashboard and the commands ask it."""
    now = datetime.now(UTC)
    some = options.ended // 2
    blocked = SagaFilter(status=SagaStatus.BLOCKED)

    def begun(ago: timedelta) -> dict[Pin, datetime]:
        return {Pin(f"order-{number}", 1, "f"): now - ago for number in range(5)}

    return {
        "list, the newest 50": lambda c: list_sagas(c, limit=50),
        "list of one name": lambda c: list_sagas(c, SagaFilter(saga="order-3"), limit=50),
        "list of the blocked": lambda c: list_sagas(c, blocked, limit=50),
        "by business key": lambda c: list_sagas(c, SagaFilter(key=f"key-{some}"), limit=50),
        "by a searchable field": lambda c: list_sagas(c, SagaFilter(where={"customer": "c-77"}), limit=50),
        "by name and searchable field": lambda c: list_sagas(
            c, SagaFilter(saga="order-2", where={"customer": "c-77"}), limit=50
        ),
        "failures, grouped": lambda c: failures(c),
        "failures of a day, turned back too": lambda c: failures(c, blocked_only=False, since=now - timedelta(days=1)),
        "stuck": lambda c: read_view(c, StuckRow, limit=10),
        "older than alarm_after, none": lambda c: old_sagas(c, begun(timedelta(days=29)), now, None),
        "older than alarm_after, nearly all": lambda c: old_sagas(c, begun(timedelta(hours=1)), now, None),
        "overview": lambda c: survey(c, [], Pace([], {})),
        "bus, without the broker": lambda c: waiting(c, now, None),
        "ended by the hour (read once a minute)": lambda c: ended_by_hour(c, now=now),
        "how long they took (read every five minutes)": lambda c: pace_of(c, now=now),
        "timeline of one": lambda c: timeline_of(c, list_sagas(c, SagaFilter(key="key-7"), limit=1)[0].saga_id),
    }


async def asked(engine: AsyncEngine, ask: Callable[[Connection], Any], times: int) -> list[float]:
    """Milliseconds of each time, the first one left out."""
    taken: list[float] = []
    async with engine.connect() as connection:
        for _ in range(times + 1):
            began = time.perf_counter()
            await connection.run_sync(ask)
            taken.append((time.perf_counter() - began) * 1000)
    return taken[1:]


async def plans(engine: AsyncEngine, ask: Callable[[Connection], Any]) -> list[str]:
    """How the database does what a question asks of it."""
    statements: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, values: Any, *___: Any) -> None:
        statements.append((statement, values))

    async with engine.connect() as connection:
        event.listen(engine.sync_engine, "before_cursor_execute", note)
        await connection.run_sync(ask)
        event.remove(engine.sync_engine, "before_cursor_execute", note)
        lines: list[str] = []
        for statement, values in statements:
            rows = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) {statement}", values)
            lines += [row[0] for row in rows]
    return lines


async def turns(options: Namespace, engines: Sequence[tuple[AsyncEngine, str]]) -> list[float]:
    """Steps a second on each database, in turns: each has an orchestrator for one turn."""
    steps = [0.0] * len(engines)
    for number in range(options.rounds):
        for place, (engine, url) in enumerate(engines):
            async with loaded(options, engine, url) as live:
                await asyncio.sleep(options.seconds / 2)
                before, began = live.changes, time.perf_counter()
                await asyncio.sleep(options.seconds)
                steps[place] += (live.changes - before) / (time.perf_counter() - began)
        told(f"live load, round {number + 1}/{options.rounds}: {[round(one / (number + 1)) for one in steps]} steps/s")
    return steps


async def measure(options: Namespace, url: str, empty_url: str) -> str:
    """Run it; tell in words."""
    patient = create_async_engine(url)
    size = await filled(patient, options)
    await patient.dispose()
    engine, empty = connect(url, ConnectionSettings()), connect(empty_url, ConnectionSettings())
    rows: list[list[object]] = []
    told_plans: list[str] = []
    for name, ask in questions(options).items():
        taken = await asked(engine, ask, options.times)
        rows.append([name, f"{median(taken):.1f}", f"{max(taken):.1f}"])
        told(f"{name}: {median(taken):.1f} ms")
        if options.plans:
            told_plans += ["", f"-- {name}", *await plans(engine, ask)]
    full, none = await turns(options, [(engine, url), (empty, empty_url)]) if options.rounds else (1.0, 1.0)
    for one in (engine, empty):
        await one.dispose()
    size_of_one = size / (options.ended + options.live) / 1000
    return "\n".join(
        [
            f"{options.ended:,} ended, {options.live:,} live sagas of three steps: {size_of_one:.1f} kB each",
            "",
            markdown(["read", "median ms", "longest ms"], rows),
            "",
            f"steps of live sagas, on this database / on an empty one: {full / max(none, 1):.2f}",
            *told_plans,
        ]
    )


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    options = arguments()
    with fresh_database(options.postgres) as url, fresh_database(options.postgres) as empty_url:
        for one in (url, empty_url):
            upgrade(one)
        print(asyncio.run(measure(options, url, empty_url)))


if __name__ == "__main__":
    main()
