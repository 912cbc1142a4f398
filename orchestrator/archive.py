"""Sagas written to files before they are deleted: JSON lines, one for each saga with all it did, without secrets.

A file is whole or not there: it is written under another name, made durable, and renamed; only then are rows deleted.
Killed in between, the same sagas are archived again by whoever deletes them, so a saga may stand in two files.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, RowMapping, select

from orchestrator.instance import Direction, Pin, SagaStatus, StepStatus
from orchestrator.payloads import payloads_of, shown_state
from orchestrator.recorded import Recorded, RecordedStep
from orchestrator.redacted import Redaction
from orchestrator.registry import SagaRegistry
from orchestrator.retention import EndedTree
from orchestrator.rising_ids import new_id
from orchestrator.sql.purging import in_lots
from orchestrator.sql.tables import in_schema, saga_audit, saga_history, saga_instance, saga_state, saga_step
from orchestrator.sql.transaction import SqlTransaction
from orchestrator.sql.types import instant_text
from orchestrator.store import StoreTransaction
from orchestrator.views import StateRow

FORMAT: Final = 1
"""Of the lines; fields may be added to it."""
_LEFT_OUT: Final = {"state", "revision", "wake_at", "seq", "current_step", "deadline", "paused_at"}
_FOR_PEOPLE: Final = {"error_text", "send_error", "text", "reason", "refused"}
_ORDERS: Final = {
    saga_step: ("seq", "branch"),
    saga_state: ("revision", "position"),
    saga_history: ("id",),
    saga_audit: ("id",),
}
_LEFT_OUT_OF_STEPS: Final = {"saga_id", "body", "reply", "memo", "send_after", "waiting_key", "updated_at"}


class FileArchive:
    """A directory of gzip files, which only whoever runs this process may read.

    Args:
        folder: is made when something is archived.
        registry: says what is secret. Sagas whose definitions are not there are not archived.
        schema: of the tables.
    """

    def __init__(self, folder: Path, registry: SagaRegistry, *, schema: str | None = None) -> None:
        self.folder = folder
        self._registry, self._schema = registry, schema

    async def keep(self, tx: StoreTransaction, trees: Sequence[EndedTree]) -> Sequence[EndedTree]:
        """Write these to a file of their own; return those that were written.

        Raises:
            OSError: they could not be written.
        """
        known = [tree for tree in trees if all(self._registry.find(pin) for pin in tree.sagas.values())]
        if known:
            assert isinstance(tx, SqlTransaction), "what is not in a database cannot be archived"
            ids = [saga_id for tree in known for saga_id in tree.sagas]
            stored = await tx.connection.run_sync(read_stored, ids, schema=self._schema)
            await asyncio.to_thread(self._write, stored)
        return known

    def _write(self, stored: Sequence[Stored]) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = f"sagas-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{new_id()}.jsonl.gz"
        write_durably(self.folder / name, (document_of(one, self._registry) for one in stored))


class Stored:
    """The rows of one saga, by the table."""

    __slots__ = ("rows", "saga")

    def __init__(self, saga: RowMapping) -> None:
        self.saga = saga
        self.rows: defaultdict[str, list[RowMapping]] = defaultdict(list)

    @property
    def steps(self) -> Sequence[RowMapping]:
        """In order of their beginning."""
        return self.rows[saga_step.name]


def read_stored(connection: Connection, saga_ids: Sequence[UUID], *, schema: str | None = None) -> list[Stored]:
    """Read these sagas, in this order: five statements for each few hundred."""
    return [one for some in in_lots(saga_ids) for one in _read_some(connection, some, schema)]


def _read_some(connection: Connection, saga_ids: Sequence[UUID], schema: str | None) -> list[Stored]:
    saga = in_schema(saga_instance, schema)
    found = connection.execute(select(saga).where(saga.c.id.in_(saga_ids))).mappings()
    stored = {row["id"]: Stored(row) for row in found}
    for source, order in _ORDERS.items():
        table = in_schema(source, schema)
        ordered = select(table).where(table.c.saga_id.in_(saga_ids)).order_by(*(table.c[one] for one in order))
        for row in connection.execute(ordered).mappings():
            stored[row["saga_id"]].rows[source.name].append(row)
    return [stored[saga_id] for saga_id in saga_ids]


def document_of(stored: Stored, registry: SagaRegistry) -> Mapping[str, Any]:
    """One line: the columns by their names, state and messages as JSON and without secrets."""
    redaction = Redaction()
    recorded = _recorded(stored)
    payloads = payloads_of(recorded, registry, redaction)
    return {
        "format": FORMAT,
        **_fields(stored.saga, _LEFT_OUT, redaction),
        "state": _json(payloads.state),
        "steps": [
            {
                **_fields(row, _LEFT_OUT_OF_STEPS, redaction),
                "sent": _json(message.sent),
                "received": _json(message.received),
            }
            for row, message in zip(stored.steps, payloads.messages, strict=True)
        ],
        "states": [
            {
                **_fields(row, {"saga_id", "state"}, redaction),
                "state": _json(shown_state(registry, recorded, row["version"], row["state"], redaction)),
            }
            for row in stored.rows[saga_state.name]
        ],
        "history": [_fields(row, {"saga_id"}, redaction) for row in stored.rows[saga_history.name]],
        "audit": [_fields(row, {"saga_id"}, redaction) for row in stored.rows[saga_audit.name]],
    }


def _recorded(stored: Stored) -> Recorded:
    row = stored.saga
    pin = Pin(row["name"], row["version"], row["fingerprint"])
    steps = [
        RecordedStep(
            one["step"],
            Direction(one["direction"]),
            one["branch"],
            StepStatus(one["status"]),
            one["wire_name"],
            one["round"],
            one["sent_at"] is not None,
            one["body"],
            one["reply"],
            one["error_code"],
            one["started_at"],
            one["ended_at"],
        )
        for one in stored.steps
    ]
    names = {"saga": row["name"], "business_key": row["business_key"]}
    states = [StateRow(**one, **names) for one in stored.rows[saga_state.name]]
    status = SagaStatus(row["status"])
    return Recorded(row["id"], pin, status, row["state"], row["started_at"], row["updated_at"], steps, (), (), states)


def _fields(row: RowMapping, left_out: set[str], redaction: Redaction) -> dict[str, Any]:
    return {name: _plain(name, value, redaction) for name, value in row.items() if name not in left_out}


def _plain(name: str, value: Any, redaction: Redaction) -> Any:
    """Ids and instants in the text that the database has on SQLite; secrets out of what is written for people."""
    match value:
        case UUID():
            return str(value)
        case datetime():
            return instant_text(value)
        case str() if name in _FOR_PEOPLE:
            return redaction.prose(value)
        case _:
            return value


def _json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def write_durably(path: Path, documents: Iterable[Mapping[str, Any]]) -> None:
    """Write a file that is there, whole, once this returns, whatever becomes of the machine."""
    unfinished = path.with_name(f"{path.name}.part")
    with open(unfinished, "xb", opener=lambda file, flags: os.open(file, flags, 0o600)) as raw:
        with gzip.open(raw, "wt", encoding="utf-8", compresslevel=6) as lines:
            for document in documents:
                lines.write(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n")
        raw.flush()
        os.fsync(raw.fileno())
    unfinished.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
