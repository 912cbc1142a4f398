"""The hot statements on PostgreSQL: one for all rows of a batch, with arrays for columns.

They run alike through asyncpg and psycopg. Parameters are cast, so that the server need not guess. A column
without a value in any row goes in as no array at all: `unnest` fills up with NULL.
"""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import product
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Dialect

from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import Pin, SagaStatus, StepKey
from orchestrator.rising_ids import new_id
from orchestrator.signals import Decision
from orchestrator.sql.hot import HAS_DUE, SIGNALLED, Loaded, known_pins, named
from orchestrator.sql.items import with_items
from orchestrator.sql.rows import (
    INSTANCE_COLUMNS,
    STEP_COLUMNS,
    UPDATED_INSTANCE_COLUMNS,
    WRITTEN_STEP_COLUMNS,
    RowValues,
    instance_update,
    key_of,
    record_of,
    sagas_of,
    step_values,
)
from orchestrator.sql.statements import Statement
from orchestrator.store import Clock, CommandRef, SagaCommand

_TYPES: Final = {
    **dict.fromkeys(("id", "saga_id", "command_id"), "uuid"),
    **dict.fromkeys(
        (
            *("version", "schema_version", "revision", "seq"),
            *("round", "attempt", "tries", "unanswered", "send_attempts"),
        ),
        "integer",
    ),
    **dict.fromkeys(
        (
            "wake_at",
            "deadline",
            "blocked_at",
            "paused_at",
            "started_at",
            "updated_at",
            "ended_at",
            "send_after",
            "sent_at",
            "at",
        ),
        "timestamptz",
    ),
}
_CHANGED: Final = "changed_"
_ADDED: Final = "added_"
"""Before the names of parameters, where one statement has several sets of them."""
_STEP_KEY: Final = ("saga_id", "step", "direction", "branch")
_ATTEMPT_COLUMNS: Final = ("command_id", "saga_id", "step", "direction", "branch", "round", "attempt")
_HISTORY_COLUMNS: Final = ("id", "saga_id", "at", "kind", "step", "text")
# In a query of its own it is read once, so that an index can be searched for it.
_NOW: Final = "(SELECT COALESCE(CAST(:now AS timestamptz), clock_timestamp()))"
_LIVE: Final = ", ".join(f"'{status.value}'" for status in SagaStatus if not status.terminal)


def _listed(columns: Iterable[str], alias: str = "") -> str:
    return ", ".join(f"{alias}{column}" for column in columns)


def _arrays(columns: Sequence[str], prefix: str = "") -> str:
    """A table `v` made of one array parameter a column: a whole batch in one statement."""
    arrays = (f"CAST(:{prefix}{column} AS {_TYPES.get(column, 'text')}[])" for column in columns)
    return f"unnest({', '.join(arrays)}) AS v({_listed(columns)})"


def _columnwise(columns: Sequence[str], rows: Sequence[RowValues], prefix: str = "") -> dict[str, list[Any] | None]:
    names = (f"{prefix}{column}" for column in columns)
    nothing = (None,) * len(rows)
    arrays = (None if values == nothing else list(values) for values in zip(*rows, strict=True))
    return dict(zip(names, arrays, strict=True))


class PostgresHot:
    """See `Hot`."""

    def __init__(self, dialect: Dialect, schema: str | None = None, clock: Clock | None = None) -> None:
        self._dialect, self._schema, self._clock = dialect, schema, clock
        self._now = self._statement("SELECT clock_timestamp()")
        self._lock_commands = self._statement(_LOCK_COMMANDS)
        self._has_due = self._statement(HAS_DUE.replace(":now", _NOW))
        self._lock = self._statement(
            f"SELECT {_listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
            "WHERE i.id = ANY(CAST(:ids AS uuid[])) ORDER BY i.id FOR NO KEY UPDATE"
        )
        self._steps = self._statement(
            # The instant comes also where there are no steps.
            f"SELECT {_listed(STEP_COLUMNS, 's.')}, instant.now FROM (SELECT clock_timestamp() AS now) instant "
            "LEFT JOIN {saga_step} s ON s.saga_id = ANY(CAST(:ids AS uuid[])) AND s.branch = ''"
        )
        self._due: dict[tuple[str, int], Statement] = {}
        self._writes = {parts: self._statement(_write(*parts)) for parts in product((False, True), repeat=2)}
        self._insert_attempts = self._statement(_insert("saga_attempt", _ATTEMPT_COLUMNS))
        self._insert_history = self._statement(_insert("saga_history", _HISTORY_COLUMNS))
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

    def has_due(self, connection: Connection) -> bool:
        """Whether something is due, by the clock that gives `now`."""
        now = None if self._clock is None else self._clock.now()
        return bool(self._has_due.rows(connection, {"now": now})[0][0])

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
            f"SELECT {_listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
            f"WHERE {condition} ORDER BY i.id LIMIT :limit FOR NO KEY UPDATE OF i SKIP LOCKED"
        )
        return self._loaded(connection, statement.rows(connection, {**values, "limit": limit}))

    def save(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        """Three statements at most, however many sagas; one when nothing is replaced or noted."""
        self._save_sagas(connection, decisions, now)
        attempts = [
            (old.command_id, decision.instance.id, *_words(old.key), old.round, old.attempt)
            for decision in decisions
            for old in decision.replaced
        ]
        if attempts:
            self._insert_attempts.run(connection, _columnwise(_ATTEMPT_COLUMNS, attempts))
        notes = [
            (new_id(), decision.instance.id, now, note.kind, note.step, note.text)
            for decision in decisions
            for note in decision.notes
            if not note.unusable
        ]
        if notes:
            self._insert_history.run(connection, _columnwise(_HISTORY_COLUMNS, notes))

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
                f"SELECT {_listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
                f"WHERE {condition} AND {known} ORDER BY {order} LIMIT :limit FOR NO KEY UPDATE OF i SKIP LOCKED"
            )
        return self._loaded(connection, statement.rows(connection, parameters | values))

    def _loaded(self, connection: Connection, instances: Sequence[RowValues]) -> Loaded:
        if not instances:
            return self.now(connection), {}
        steps = self._steps.rows(connection, {"ids": [row[0] for row in instances]})
        now: datetime = steps[0][-1] if self._clock is None else self._clock.now()
        found = steps if steps[0][0] is not None else ()
        return now, with_items(connection, sagas_of(instances, found), self._schema)

    def _save_sagas(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        """Instances and records in one statement: each more would be a round trip for every batch."""
        instances = [instance_update(decision.instance) for decision in decisions]
        changed = [step_values(d.instance.id, d.steps[key], now) for d in decisions for key in d.changed]
        added = [step_values(d.instance.id, d.steps[key], now) for d in decisions for key in d.added]
        values = _columnwise(UPDATED_INSTANCE_COLUMNS, instances)
        if changed:
            values |= _columnwise(WRITTEN_STEP_COLUMNS, changed, _CHANGED)
        if added:
            values |= _columnwise(WRITTEN_STEP_COLUMNS, added, _ADDED)
        written = self._writes[bool(changed), bool(added)].rows(connection, values)[0][0]
        if written != len(instances):
            one = decisions[0].instance
            raise ConcurrentUpdate(one.id, one.revision)  # held by us, so this cannot be


def _words(key: StepKey) -> tuple[str, str, str]:
    return key.step, key.direction.value, key.branch


def _claimed(row: Sequence[Any], at: int) -> SagaCommand:
    """Read a claimed row: a record, and from position `at` on body, name and trace."""
    record = record_of(row, body=row[at])
    return SagaCommand(row[0], row[at + 1], record, row[at + 2], record.send_attempts)


def _insert(table: str, columns: Sequence[str], prefix: str = "") -> str:
    into = f"INSERT INTO {{{table}}} ({_listed(columns)})"
    return f"{into} SELECT {_listed(columns, 'v.')} FROM {_arrays(columns, prefix)}"


def _set(columns: Iterable[str], **special: str) -> str:
    return ", ".join(f"{column} = {special.get(column, f'v.{column}')}" for column in (*columns, *special))


_FOUND: Final = " UNION ALL ".join(
    f"SELECT {_listed(_ATTEMPT_COLUMNS)} FROM {table} WHERE command_id = ANY(CAST(:ids AS uuid[]))"
    for table in ("{saga_step}", "{saga_attempt}")
)
_REF_COLUMNS: Final = [column for column in _ATTEMPT_COLUMNS if column != "saga_id"]
_LOCK_COMMANDS: Final = (
    f"WITH found AS ({_FOUND}), "
    f"locked AS (SELECT {_listed(INSTANCE_COLUMNS, 'i.')} FROM {{saga_instance}} i "
    "WHERE i.id = ANY(ARRAY(SELECT saga_id FROM found)) ORDER BY i.id FOR NO KEY UPDATE), "
    f"refs AS (SELECT saga_id, {', '.join(f'array_agg({c}) AS {c}s' for c in _REF_COLUMNS)} FROM found GROUP BY 1) "
    f"SELECT {_listed(INSTANCE_COLUMNS, 'locked.')}, {', '.join(f'refs.{c}s' for c in _REF_COLUMNS)} "
    "FROM locked JOIN refs ON refs.saga_id = locked.id"
)
_UPDATE_INSTANCES: Final = (
    f"UPDATE {{saga_instance}} i SET revision = i.revision + 1, {_set(UPDATED_INSTANCE_COLUMNS[2:])} "
    f"FROM {_arrays(UPDATED_INSTANCE_COLUMNS)} WHERE i.id = v.id AND i.revision = v.revision"
)
_SPECIAL: Final = {
    "body": "COALESCE(v.body, s.body)",
    "reply": "COALESCE(v.reply, s.reply)",
    # Others raise it without the saga's lock.
    "send_attempts": "CASE WHEN v.command_id IS DISTINCT FROM s.command_id THEN v.send_attempts "
    "ELSE GREATEST(v.send_attempts, s.send_attempts) END",
    "send_error": "CASE WHEN v.send_after IS NULL OR v.command_id IS DISTINCT FROM s.command_id "
    "THEN '' ELSE s.send_error END",
}
_UPDATE_STEPS: Final = (
    f"UPDATE {{saga_step}} s "
    f"SET {_set([c for c in WRITTEN_STEP_COLUMNS[5:] if c not in _SPECIAL], **_SPECIAL)} "
    f"FROM {_arrays(WRITTEN_STEP_COLUMNS, _CHANGED)} WHERE "
    + " AND ".join(f"s.{column} = v.{column}" for column in _STEP_KEY)
)


def _write(changed: bool, added: bool) -> str:
    """One statement for what a batch writes; it gives the number of instances that were written."""
    parts = [f"instances AS ({_UPDATE_INSTANCES} RETURNING 1)"]
    if changed:
        parts.append(f"changed AS ({_UPDATE_STEPS})")
    if added:
        parts.append(f"added AS ({_insert('saga_step', WRITTEN_STEP_COLUMNS, _ADDED)})")
    return f"WITH {', '.join(parts)} SELECT count(*) FROM instances"


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
    "ORDER BY s.send_after LIMIT :limit FOR NO KEY UPDATE OF s SKIP LOCKED) "
    "UPDATE {saga_step} s SET send_after = CAST(:until AS timestamptz), send_attempts = s.send_attempts + 1 FROM due "
    f"WHERE {' AND '.join(f's.{column} = due.{column}' for column in _STEP_KEY)} "
    f"RETURNING {_listed(STEP_COLUMNS, 's.')}, s.body, due.name, due.trace, due.send_after"
)
_PUT_OFF: Final = (
    "WITH held AS (SELECT command_id FROM {saga_step} WHERE command_id = ANY(CAST(:ids AS uuid[])) "
    "AND send_after IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED) "
    "UPDATE {saga_step} s SET send_after = v.until, send_error = v.error FROM held, "
    "unnest(CAST(:ids AS uuid[]), CAST(:untils AS timestamptz[]), CAST(:errors AS text[])) "
    "AS v(command_id, until, error) WHERE s.command_id = held.command_id AND s.command_id = v.command_id"
)
