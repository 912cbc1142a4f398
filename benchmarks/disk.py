"""What a stored saga takes in PostgreSQL: bytes of each table and index, as it is left and packed, and of each column.

    python -m benchmarks.disk --postgres postgresql://...   # or: --sagas 20000 --written 0

Once for sagas of three steps that the engine has run, once for those that `benchmarks.stored` writes: these have longer
states and messages, business keys and a searchable field. Packed is after VACUUM FULL; between the two lies what
updates have left behind and the room that is kept in each page.
"""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from benchmarks.ends import Ends
from benchmarks.numbers import markdown
from benchmarks.report import parsed, parser_of, report, told
from benchmarks.saga_run import closed_loop
from benchmarks.stored import filled
from benchmarks.workloads import SERVICES, orchestrator
from messaging.settings import MessagingSettings
from orchestrator import running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.migrate import upgrade
from orchestrator.sql.tables import saga_instance, saga_step
from tests.support.databases import fresh_database

_RELATIONS: Final = """
    SELECT coalesce(t.relname || ': ' || c.relname, c.relname) AS name,
        CASE WHEN t.relname IS NULL THEN pg_table_size(c.oid) ELSE pg_relation_size(c.oid) END AS bytes
    FROM pg_class c LEFT JOIN pg_index x ON x.indexrelid = c.oid LEFT JOIN pg_class t ON t.oid = x.indrelid
    WHERE c.relkind IN ('r', 'i') AND c.relnamespace = 'public'::regnamespace
"""
_LEAST: Final = 10
"""Bytes a saga below which a table or an index is not shown."""

Sizes = dict[str, float]
Fill = Callable[[AsyncEngine, str], Awaitable[None]]


async def sizes(engine: AsyncEngine, sagas: int) -> Sizes:
    """Bytes a saga of each table and index."""
    async with engine.connect() as connection:
        rows = (await connection.execute(text(_RELATIONS))).all()
    return {name: bytes_ / sagas for name, bytes_ in rows}


async def columns(engine: AsyncEngine, sagas: int) -> Sizes:
    """Bytes a saga of each column of the two large tables, and of the headers of their rows."""
    of_each: Sizes = {}
    async with engine.connect() as connection:
        for table in (saga_instance, saga_step):
            names = [column.name for column in table.columns]
            sums = ", ".join(f"sum(pg_column_size({name}))" for name in names)
            row = (await connection.execute(text(f"SELECT count(*), {sums} FROM {table.name}"))).one()
            # Line pointer, header, and the bitmap of what is null, to a multiple of eight.
            of_each[f"{table.name}: headers"] = row[0] * (4 + (23 + (len(names) + 7) // 8 + 7) // 8 * 8) / sagas
            for name, taken in zip(names, row[1:], strict=True):
                of_each[f"{table.name}: {name}"] = float(taken or 0) / sagas
    return of_each


async def vacuumed(engine: AsyncEngine, how: str) -> None:
    """Vacuum the database."""
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text(how))


async def run_by_the_engine(engine: AsyncEngine, url: str, sagas: int) -> None:
    """Run so many sagas to their end, on an embedded orchestrator."""
    app, ends = orchestrator(), Ends()
    app.use(ends)
    settings = OrchestratorSettings(database_url=SecretStr(url))
    async with running(app, *SERVICES, settings=settings, messaging=MessagingSettings()):
        await closed_loop(engine, ends, Namespace(saga="three-steps", sagas=sagas, in_flight=200))


async def measure(url: str, sagas: int, fill: Fill) -> dict[str, Sizes]:
    """Fill, measure, pack, measure again; what was there before does not count."""
    engine = create_async_engine(url)
    before = await sizes(engine, sagas)
    await fill(engine, url)
    await vacuumed(engine, "VACUUM ANALYZE")
    left = await sizes(engine, sagas)
    of_columns = await columns(engine, sagas)
    await vacuumed(engine, "VACUUM FULL")
    packed = await sizes(engine, sagas)
    await engine.dispose()
    return {
        "left": {name: taken - before[name] for name, taken in left.items()},
        "packed": {name: taken - before[name] for name, taken in packed.items()},
        "columns": of_columns,
    }


def tables(title: str, measured: dict[str, Sizes]) -> str:
    """Relations, then columns, the largest first."""
    left, packed = measured["left"], measured["packed"]
    rows: list[Sequence[object]] = [
        [name, round(left[name]), round(packed[name])]
        for name in sorted(left, key=lambda one: -left[one])
        if left[name] >= _LEAST
    ]
    rows.append(["all of it", round(sum(left.values())), round(sum(packed.values()))])
    of_columns = sorted(measured["columns"].items(), key=lambda one: -one[1])
    parts = [[name, round(taken)] for name, taken in of_columns if taken >= _LEAST]
    relations = markdown([title, "bytes a saga, as left", "packed"], rows)
    return f"{relations}\n\n{markdown(['column', 'bytes a saga'], parts)}"


def measured_of(options: Namespace, title: str, sagas: int, fill: Fill) -> dict[str, Sizes]:
    """Measure on a database of its own."""
    told(f"{title}: {sagas:,} sagas ...")
    with fresh_database(options.postgres) as url:
        upgrade(url)
        return asyncio.run(measure(url, sagas, fill))


def main() -> None:
    """Parse, run, print."""
    logging.basicConfig(level=logging.WARNING)
    parser = parser_of(__doc__, "postgres")
    parser.add_argument("--sagas", type=int, default=10_000, help="run by the engine; 0 leaves this out")
    parser.add_argument("--written", type=int, default=100_000, help="written as by stored; 0 leaves this out")
    options = parsed(parser)

    async def run(engine: AsyncEngine, url: str) -> None:
        await run_by_the_engine(engine, url, options.sagas)

    async def write(engine: AsyncEngine, _: str) -> None:
        await filled(engine, Namespace(ended=options.written, live=0))

    kinds = {"run by the engine": (options.sagas, run), "written by stored": (options.written, write)}
    measured = {title: measured_of(options, title, sagas, fill) for title, (sagas, fill) in kinds.items() if sagas}
    report(options, "\n\n".join(tables(title, one) for title, one in measured.items()), {"bytes_a_saga": measured})


if __name__ == "__main__":
    main()
