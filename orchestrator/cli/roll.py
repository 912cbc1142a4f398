"""What `saga doctor` finds about versions: which engines run, and which sagas in flight none of them has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from orchestrator.cli.findings import Finding, Level

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from orchestrator.instance import Pin


def roll(connection: Connection, schema: str | None) -> Iterator[Finding]:
    """Compare what engines have announced with what is in flight. Reads only."""
    from orchestrator.sql.in_flight import in_flight
    from orchestrator.sql.versions import live_workers
    from orchestrator.workers import DEAD_AFTER

    workers = live_workers(connection, datetime.now(UTC), DEAD_AFTER, schema=schema)
    places = ", ".join(f"{worker.host} (process {worker.process_id})" for worker in workers)
    heard_of = f"engines heard of in the last minute: {places or 'none'}"
    yield Finding(Level.OK, "engines", heard_of, "" if workers else "saga run MODULE:ATTRIBUTE")
    known = {pin for worker in workers for pin in worker.pins}
    counts: Counter[Pin] = Counter()
    for some in in_flight(connection, schema=schema):
        counts[some.pin] += some.count
    for pin, count in counts.items():
        if pin not in known:
            yield Finding(
                Level.WARN,
                "versions",
                f"in flight, and no engine that runs has this version: {count} of {pin.name} v{pin.version}",
                f"run one that has it (saga run ...), or see: saga upgrade {pin.name} --from {pin.version} --dry-run",
            )
