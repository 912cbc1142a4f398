"""The hot statements on PostgreSQL: one for all rows of a batch, with arrays for columns.

They run alike through asyncpg and psycopg. What they write is in `writes.py`.
"""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Dialect

from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import Pin, SagaStatus
from orchestrator.signals import Decision
from orchestrator.sql.arrays import listed
from orchestrator.sql.hot import DUE, SIGNALLED, Loaded, known_pins, named
from orchestrator.sql.items import with_items
from orchestrator.sql.rows import (
    INSTANCE_COLUMNS,
    STEP_COLUMNS,
    RowValues,
    key_of,
    record_of,
    sagas_of,
)
from orchestrator.sql.statements import Statement
from orchestrator.sql.writes import ATTEMPT_COLUMNS, STEP_KEY, Writes
from orchestrator.store import Clock
from orchestrator.store_records import CommandRef, DueWork, SagaCommand

# In a query of its own it is read once, so that an index can be searched for it.
_NOW: Final = "(SELECT COALESCE(CAST(:now AS timestamptz), clock_timestamp()))"
_SEQ: Final = INSTANCE_COLUMNS.index("seq")
_LIVE: Final = ", ".join(f"'{status.value}'" for status in SagaStatus if not status.terminal)


class PostgresHot:
    """See `Hot`."""

    def __init__(self, dialect: Dialect, schema: str | None = None, clock: Clock | None = None) -> None:
        self._dialect, self._schema, self._clock = dialect, schema, clock
        self._now = self._statement("SELECT clock_timestamp()")
        self._lock_commands = self._statement(_LOCK_COMMANDS)
        self._due_now = self._statement(DUE.replace(":now", _NOW))
        self._lock = self._statement(
            f"SELECT {listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
            "WHERE i.id = ANY(CAST(:ids AS uuid[])) ORDER BY i.id FOR NO KEY UPDATE"
        )
        self._steps = self._statement(
            # The instant comes also where there are no steps.
            f"SELECT {listed(STEP_COLUMNS, 's.')}, instant.now FROM (SELECT clock_timestamp() AS now) instant "
            "LEFT JOIN {saga_step} s ON s.saga_id = ANY(CAST(:ids AS uuid[])) AND s.branch = ''"
        )
        self._due: dict[tuple[str, int], Statement] = {}
        self._writes = Writes(dialect, schema)
        self._mark = self._statement(_MARK)
        self._claim = self._statement(_CLAIM)
        self._put_off = self._statement(_PUT_OFF)

    def _statement(self, sql: str) -> Statement:
        return Statement(named(self._schema, sql), self._dialect)

    def now(self, connection: Connection) -> datetime:
        """The server's clock, not the transaction's start."""
        if self._clock is not None:
            return self._clock.now()
        now: datetime = self._now.rows(connection, {})[0][0]
        return now

    def due(self, connection: Connection) -> DueWork:
        """What is due, by the clock that gives `now`."""
        now = None if self._clock is None else self._clock.now()
        return DueWork(*self._due_now.rows(connection, {"now": now})[0])

    def lock_commands(
        self, connection: Connection, command_ids: Sequence[UUID]
    ) -> tuple[dict[UUID, CommandRef], Loaded]:
        """Find and lock in one statement; what is found cannot change, only move from one table to the other."""
        rows = self._lock_commands.rows(connection, {"ids": list(command_ids)})
        refs = {
            command_id: CommandRef(row[0], key_of(step, direction, branch), round_, attempt)
            for row in rows
            for command_id, step, direction, branch, round_, attempt in zip(*row[-6:], strict=True)
        }
        return refs, self._loaded(connection, rows)

    def lock(self, connection: Connection, saga_ids: Sequence[UUID]) -> Loaded:
        """Wait for the rows in order of id, so that two batches never wait for each other in a circle."""
        return self._loaded(connection, self._lock.rows(connection, {"ids": list(saga_ids)}))

    def lock_due(self, connection: Connection, pins: Sequence[Pin], limit: int, *, only_new: bool) -> Loaded:
        """Along the index of wake_at; pass over what others hold."""
        now = None if self._clock is None else self._clock.now()
        condition = f"i.wake_at <= {_NOW}" + (" AND i.seq = 0" if only_new else "")
        return self._lock_some(connection, pins, condition, "i.wake_at, i.id", {"now": now, "limit": limit})

    def lock_signalled(self, connection: Connection, pins: Sequence[Pin], limit: int) -> Loaded:
        """Along the index of pending signals; pass over what others hold."""
        return self._lock_some(connection, pins, SIGNALLED, "i.id", {"limit": limit})

    def lock_where(self, connection: Connection, condition: str, values: Mapping[str, Any], limit: int) -> Loaded:
        """Pass over what others hold."""
        statement = self._statement(
            f"SELECT {listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
            f"WHERE {condition} ORDER BY i.id LIMIT :limit FOR NO KEY UPDATE OF i SKIP LOCKED"
        )
        return self._loaded(connection, statement.rows(connection, {**values, "limit": limit}))

    def save(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        """One statement, however many sagas."""
        if not self._writes.write(connection, decisions, now):
            one = decisions[0].instance
            raise ConcurrentUpdate(one.id, one.revision)  # held by us, so this cannot be

    def mark_sent(self, connection: Connection, command_ids: Sequence[UUID], now: datetime) -> None:
        """Rows held by others are left for the next claim, which sends a copy."""
        self._mark.run(connection, {"ids": list(command_ids), "now": now})

    def claim_unsent(self, connection: Connection, now: datetime, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Rows held by others are being answered, or being claimed."""
        values = {"now": now, "until": now + grace, "limit": limit}
        rows = sorted(self._claim.rows(connection, values), key=lambda row: (row[-1], row[4]))
        return [_claimed(row, len(STEP_COLUMNS)) for row in rows]

    def put_off_sends(self, connection: Connection, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """As `mark_sent`, for what did not leave."""
        untils, errors = zip(*problems.values(), strict=True)
        values = {"ids": list(problems), "untils": list(untils), "errors": list(errors)}
        self._put_off.run(connection, values)

    def _lock_some(
        self, connection: Connection, pins: Sequence[Pin], condition: str, order: str, values: dict[str, Any]
    ) -> Loaded:
        known, parameters = known_pins(pins)
        statement = self._due.get((condition, len(pins)))
        if statement is None:
            statement = self._due[condition, len(pins)] = self._statement(
                f"SELECT {listed(INSTANCE_COLUMNS, 'i.')}, clock_timestamp() FROM {{saga_instance}} i "
                f"WHERE {condition} AND {known} ORDER BY {order} LIMIT :limit FOR NO KEY UPDATE OF i SKIP LOCKED"
            )
        rows = statement.rows(connection, parameters | values)
        if rows and not any(row[_SEQ] for row in rows):  # new ones have no records, and nothing was waited for
            return self._clock.now() if self._clock else max(row[-1] for row in rows), sagas_of(rows, ())
        return self._loaded(connection, rows)

    def _loaded(self, connection: Connection, instances: Sequence[RowValues]) -> Loaded:
        if not instances:
            return self.now(connection), {}
        steps = self._steps.rows(connection, {"ids": [row[0] for row in instances]})
        now: datetime = steps[0][-1] if self._clock is None else self._clock.now()
        found = steps if steps[0][0] is not None else ()
        return now, with_items(connection, sagas_of(instances, found), self._schema)


def _claimed(row: Sequence[Any], at: int) -> SagaCommand:
    """Read a claimed row: a record, and from position `at` on body, name and trace."""
    record = record_of(row, body=row[at])
    return SagaCommand(row[0], row[at + 1], record, row[at + 2], record.send_attempts)


FOUND: Final = " UNION ALL ".join(
    f"SELECT {listed(ATTEMPT_COLUMNS)} FROM {table} WHERE command_id = ANY(CAST(:ids AS uuid[]))"
    for table in ("{saga_step}", "{saga_attempt}")
)
REF_COLUMNS: Final = [column for column in ATTEMPT_COLUMNS if column != "saga_id"]
_LOCK_COMMANDS: Final = (
    f"WITH found AS ({FOUND}), "
    f"locked AS (SELECT {listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
    "WHERE i.id = ANY(ARRAY(SELECT saga_id FROM found)) ORDER BY i.id FOR NO KEY UPDATE), "
    f"refs AS (SELECT saga_id, {', '.join(f'array_agg({c}) AS {c}s' for c in REF_COLUMNS)} FROM found GROUP BY 1) "
    f"SELECT {listed(INSTANCE_COLUMNS, 'locked.')}, {', '.join(f'refs.{c}s' for c in REF_COLUMNS)} "
    "FROM locked JOIN refs ON refs.saga_id = locked.id"
)
_MARK: Final = (
    "WITH confirmed AS (SELECT command_id FROM {saga_step} WHERE command_id = ANY(CAST(:ids AS uuid[])) "
    "AND send_after IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED) "
    "UPDATE {saga_step} s SET send_after = NULL, sent_at = CAST(:now AS timestamptz), send_error = '', "
    "updated_at = CAST(:now AS timestamptz) FROM confirmed WHERE s.command_id = confirmed.command_id"
)
_CLAIM: Final = (
    "WITH due AS (SELECT s.saga_id, s.step, s.direction, s.branch, s.send_after, i.name, i.trace "
    "FROM {saga_step} s JOIN {saga_instance} i ON i.id = s.saga_id "
    "WHERE s.send_after <= CAST(:now AS timestamptz) AND i.paused_at IS NULL "
    f"AND i.status IN ({_LIVE}) "
    "ORDER BY s.send_after LIMIT :limit FOR NO KEY UPDATE OF s, i SKIP LOCKED), "
    # What was decided meanwhile on a saga that was read without a lock took the command for unsent.
    "raised AS (UPDATE {saga_instance} i SET revision = i.revision + 1 "
    "FROM (SELECT DISTINCT saga_id FROM due) claimed WHERE i.id = claimed.saga_id) "
    "UPDATE {saga_step} s SET send_after = CAST(:until AS timestamptz), send_attempts = s.send_attempts + 1 FROM due "
    f"WHERE {' AND '.join(f's.{column} = due.{column}' for column in STEP_KEY)} "
    f"RETURNING {listed(STEP_COLUMNS, 's.')}, s.body, due.name, due.trace, due.send_after"
)
_PUT_OFF: Final = (
    "WITH held AS (SELECT command_id FROM {saga_step} WHERE command_id = ANY(CAST(:ids AS uuid[])) "
    "AND send_after IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED) "
    "UPDATE {saga_step} s SET send_after = v.until, send_error = v.error FROM held, "
    "unnest(CAST(:ids AS uuid[]), CAST(:untils AS timestamptz[]), CAST(:errors AS text[])) "
    "AS v(command_id, until, error) WHERE s.command_id = held.command_id AND s.command_id = v.command_id"
)
