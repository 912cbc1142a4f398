"""DBOS: a workflow of three steps in one process, each recorded in PostgreSQL or SQLite; prints one JSON line.

    python -m benchmarks.peers.with_dbos --database postgresql://... --sagas 300 --in-flight 100
    python -m benchmarks.peers.with_dbos --sagas 300 --in-flight 100      # in a new file of SQLite

Its steps are functions that are called: nothing is sent to a participant.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dbos import DBOS

from benchmarks.numbers import Cpu, percentile

ORDER = {"order": 12345, "customer": "customer-42", "lines": [{"sku": "abc", "quantity": 1}]}


class Refused(Exception):
    """The third step does not want to."""


@DBOS.step()
def reserve_stock(order: dict[str, object]) -> str:
    return f"s-{order['order']}"


@DBOS.step()
def charge_card(order: dict[str, object]) -> str:
    return f"c-{order['order']}"


@DBOS.step()
def ship_order(order: dict[str, object], refused: bool) -> str:
    if refused:
        raise Refused
    return f"p-{order['order']}"


@DBOS.step()
def release_stock(order: dict[str, object]) -> None:
    return None


@DBOS.step()
def refund_card(order: dict[str, object]) -> None:
    return None


@DBOS.workflow()
def three_steps(order: dict[str, object], refused: bool) -> list[str]:
    references = [reserve_stock(order), charge_card(order)]
    try:
        return [*references, ship_order(order, refused)]
    except Refused:
        refund_card(order)
        release_stock(order)
        return []


def one_saga(refused: bool) -> float:
    """Run one, and return its milliseconds."""
    begun = time.perf_counter()
    references = three_steps(ORDER, refused)
    assert len(references) == (0 if refused else 3)
    return (time.perf_counter() - begun) * 1000


def measure(url: str, options: argparse.Namespace) -> dict[str, float]:
    """Run it on this database."""
    DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
    DBOS.launch()
    one_saga(options.refused)  # what is made the first time is no saga's cost
    begun, cpu = time.perf_counter(), Cpu()
    with ThreadPoolExecutor(options.in_flight) as threads:
        took = sorted(threads.map(one_saga, [options.refused] * options.sagas))
    seconds, micros = time.perf_counter() - begun, cpu.micros()
    return {
        "sagas_per_second": round(options.sagas / seconds, 1),
        "p50_ms": round(percentile(took, 50), 1),
        "p99_ms": round(percentile(took, 99), 1),
        "cpu_us_per_saga": round(micros / options.sagas),
        "cpu_us_per_command": round(micros / options.sagas / (5 if options.refused else 3)),
    }


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", default="", help="of PostgreSQL; a new file of SQLite unless given")
    parser.add_argument("--sagas", type=int, default=300)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--refused", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = options.database or f"sqlite:///{Path(folder) / 'dbos.db'}"
        measured = measure(database.replace("+asyncpg", "").replace("postgresql://", "postgresql+psycopg://"), options)
        print(json.dumps(measured), flush=True)
        DBOS.destroy()
    os._exit(0)


if __name__ == "__main__":
    main()
