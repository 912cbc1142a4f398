"""The hot statements on SQLite: prepared once, run for each row in one call; lists go in as JSON.

A transaction here is the only writer (it began as one), so nothing needs to be locked row by row.
"""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import Pin, SagaInstance, SagaStatus, StepKey
from orchestrator.rising_ids import new_id
from orchestrator.signals import Decision
from orchestrator.sql.hot import DUE, SIGNALLED, Loaded, known_pins, named
from orchestrator.sql.items import with_items
from orchestrator.sql.rows import (
    INSTANCE_COLUMNS,
    STEP_COLUMNS,
    UPDATED_INSTANCE_COLUMNS,
    WRITTEN_STEP_COLUMNS,
    from_text,
    instance_update,
    key_of,
    record_of,
    sagas_of,
    step_values,
    to_text,
)
from orchestrator.sql.types import id_from_text, id_text, instant_text
from orchestrator.store import Clock
from orchestrator.store_records import CommandRef, DueWork, SagaCommand

_STEP_KEY: Final = ("saga_id", "step", "direction", "branch")
_ATTEMPT_COLUMNS: Final = ("command_id", "saga_id", "step", "direction", "branch", "round", "attempt")
_HISTORY_COLUMNS: Final = ("id", "saga_id", "at", "kind", "step", "text")
_instance_of, _step_of = from_text(INSTANCE_COLUMNS), from_text(STEP_COLUMNS)
_instance_text, _step_text = to_text(UPDATED_INSTANCE_COLUMNS), to_text(WRITTEN_STEP_COLUMNS)
_DUE: Final = named(None, DUE)
_LIVE: Final = ", ".join(f"'{status.value}'" for status in SagaStatus if not status.terminal)


def _listed(columns: Iterable[str], alias: str = "") -> str:
    return ", ".join(f"{alias}{column}" for column in columns)


def _ids(ids: Iterable[UUID]) -> str:
    return json.dumps([id_text(one) for one in ids])


# SQLAlchemy's own cursors would cost as much as the statements.


def _read(connection: Connection, statement: str, values: Mapping[str, Any]) -> list[Any]:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
    finally:
        cursor.close()


def _write(connection: Connection, statement: str, values: Mapping[str, Any]) -> None:
    cursor = connection.connection.cursor()
    try:
        cursor.execute(statement, values)
    finally:
        cursor.close()


def _write_each(connection: Connection, statement: str, rows: Sequence[Sequence[Any]]) -> int:
    cursor = connection.connection.cursor()
    try:
        cursor.executemany(statement, rows)
        return int(cursor.rowcount)
    finally:
        cursor.close()


class SqliteHot:
    """See `Hot`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def now(self, connection: Connection) -> datetime:
        """The process' clock: there is one engine a file."""
        return self._clock.now()

    def due(self, connection: Connection) -> DueWork:
        """What is due."""
        return DueWork(*map(bool, _read(connection, _DUE, {"now": instant_text(self._clock.now())})[0]))

    def lock_commands(
        self, connection: Connection, command_ids: Sequence[UUID]
    ) -> tuple[dict[UUID, CommandRef], Loaded]:
        """By the unique index of live attempts, and by the key of replaced ones."""
        rows = _read(connection, _FIND, {"ids": _ids(command_ids)})
        refs = {
            id_from_text(row[0]): CommandRef(id_from_text(row[1]), key_of(row[2], row[3], row[4]), row[5], row[6])
            for row in rows
        }
        return refs, self.lock(connection, {ref.saga_id for ref in refs.values()})

    def lock(self, connection: Connection, saga_ids: Iterable[UUID]) -> Loaded:
        """Load: the transaction has the whole file."""
        return self._load(
            connection, "i.id IN (SELECT value FROM json_each(:ids)) ORDER BY i.id", {"ids": _ids(saga_ids)}
        )

    def lock_due(self, connection: Connection, pins: Sequence[Pin], limit: int, *, only_new: bool) -> Loaded:
        """Along the index of wake_at."""
        known, values = known_pins(pins)
        new = "AND i.seq = 0" if only_new else ""
        condition = f"i.wake_at <= :now AND {known} {new} ORDER BY i.wake_at, i.id LIMIT :limit"
        return self._load(connection, condition, values | {"now": instant_text(self._clock.now()), "limit": limit})

    def lock_signalled(self, connection: Connection, pins: Sequence[Pin], limit: int) -> Loaded:
        """Along the index of pending signals."""
        known, values = known_pins(pins)
        condition = f"{named(None, SIGNALLED)} AND {known} ORDER BY i.id LIMIT :limit"
        return self._load(connection, condition, values | {"limit": limit})

    def lock_where(self, connection: Connection, condition: str, values: Mapping[str, Any], limit: int) -> Loaded:
        """Nobody else holds anything."""
        plain = {name: instant_text(value) if isinstance(value, datetime) else value for name, value in values.items()}
        found = f"{named(None, condition)} ORDER BY i.id LIMIT :limit"
        return self._load(connection, found, {**plain, "limit": limit})

    def save(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        """Five calls at most, however many sagas."""
        self._save_instances(connection, [decision.instance for decision in decisions])
        self._save_steps(connection, decisions, now)
        attempts = [
            (str(old.command_id), str(decision.instance.id), *_words(old.key), old.round, old.attempt)
            for decision in decisions
            for old in decision.replaced
        ]
        if attempts:
            _write_each(connection, _insert("saga_attempt", _ATTEMPT_COLUMNS), attempts)
        at = instant_text(now)
        notes = [
            (str(new_id()), str(decision.instance.id), at, note.kind, note.step, note.text)
            for decision in decisions
            for note in decision.notes
            if not note.unusable
        ]
        if notes:
            _write_each(connection, _insert("saga_history", _HISTORY_COLUMNS), notes)

    def mark_sent(self, connection: Connection, command_ids: Sequence[UUID], now: datetime) -> None:
        """What was answered or replaced since has nothing to send."""
        _write(connection, _MARK, {"ids": _ids(command_ids), "now": instant_text(now)})

    def claim_unsent(self, connection: Connection, now: datetime, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Read, then write: nobody else can be in between."""
        rows = _read(connection, _CLAIMABLE, {"now": instant_text(now), "limit": limit})
        until = now + grace
        if rows:
            _write_each(connection, _CLAIM, [(instant_text(until), *row[:4]) for row in rows])
        return [_claimed(row, until) for row in rows]

    def put_off_sends(self, connection: Connection, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """As `mark_sent`, for what did not leave."""
        rows = [(instant_text(until), error, str(one)) for one, (until, error) in problems.items()]
        _write_each(connection, _PUT_OFF, rows)

    def _load(self, connection: Connection, condition: str, values: Mapping[str, Any]) -> Loaded:
        instances = _read(connection, _INSTANCES + condition, values)
        if not instances:
            return self._clock.now(), {}
        ids = json.dumps([row[0] for row in instances])
        steps = _read(connection, _STEPS, {"ids": ids})
        sagas = sagas_of(map(_instance_of, instances), map(_step_of, steps))
        return self._clock.now(), with_items(connection, sagas)

    def _save_instances(self, connection: Connection, sagas: Sequence[SagaInstance]) -> None:
        rows = [_instance_text(instance_update(saga)) for saga in sagas]
        values = [(*row[2:], *row[:2]) for row in rows]
        if _write_each(connection, _UPDATE_INSTANCES, values) != len(rows):
            raise ConcurrentUpdate(sagas[0].id, sagas[0].revision)  # held by us, so this cannot be

    def _save_steps(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        changed = [
            _step_text(step_values(decision.instance.id, decision.steps[key], now))
            for decision in decisions
            for key in decision.changed
        ]
        if changed:
            _write_each(connection, _update_steps, list(map(_of_changed_step, changed)))
        added = [
            _step_text(step_values(decision.instance.id, decision.steps[key], now))
            for decision in decisions
            for key in decision.added
        ]
        if added:
            _write_each(connection, _INSERT_STEPS, added)


def _words(key: StepKey) -> tuple[str, str, str]:
    return key.step, key.direction.value, key.branch


def _claimed(row: Sequence[Any], until: datetime) -> SagaCommand:
    width = len(STEP_COLUMNS)
    before = record_of(_step_of(row), body=row[width])
    record = replace(before, send_after=until, send_attempts=before.send_attempts + 1)
    return SagaCommand(id_from_text(row[0]), row[width + 1], record, row[width + 2], record.send_attempts)


def _insert(table: str, columns: Sequence[str]) -> str:
    return f"INSERT INTO {table} ({_listed(columns)}) VALUES ({', '.join('?' * len(columns))})"


def _by_position(columns: Sequence[str], statement: str) -> tuple[str, Callable[[Sequence[Any]], Sequence[Any]]]:
    """A statement with its columns' names as parameters, by position, and what puts a row in that order.

    By name each value of each row would be looked up.
    """
    order = [columns.index(name) for name in re.findall(r":(\w+)", statement)]
    return re.sub(r":\w+", "?", statement), itemgetter(*order)


_FIND: Final = " UNION ALL ".join(
    f"SELECT {_listed(_ATTEMPT_COLUMNS)} FROM {table} WHERE command_id IN (SELECT value FROM json_each(:ids))"
    for table in ("saga_step", "saga_attempt")
)
_INSTANCES: Final = f"SELECT {_listed(INSTANCE_COLUMNS, 'i.')} FROM saga_instance i WHERE "
_STEPS: Final = (
    f"SELECT {_listed(STEP_COLUMNS)} FROM saga_step "
    "WHERE branch = '' AND saga_id IN (SELECT value FROM json_each(:ids))"
)
_UPDATE_INSTANCES: Final = (
    "UPDATE saga_instance SET revision = revision + 1, "
    + ", ".join(f"{column} = ?" for column in UPDATED_INSTANCE_COLUMNS[2:])
    + " WHERE id = ? AND revision = ?"
)
_SPECIAL: Final = {
    "body": "COALESCE(:body, body)",
    "reply": "COALESCE(:reply, reply)",
    # Claims raise it without the saga's lock.
    "send_attempts": "CASE WHEN :command_id IS NOT command_id THEN :send_attempts "
    "ELSE MAX(:send_attempts, send_attempts) END",
    "send_error": "CASE WHEN :send_after IS NULL OR :command_id IS NOT command_id THEN '' ELSE send_error END",
}
_update_steps, _of_changed_step = _by_position(
    WRITTEN_STEP_COLUMNS,
    "UPDATE saga_step SET "
    + ", ".join(
        f"{column} = {_SPECIAL.get(column, f':{column}')}"
        for column in dict.fromkeys((*WRITTEN_STEP_COLUMNS[5:], *_SPECIAL))
    )
    + " WHERE "
    + " AND ".join(f"{column} = :{column}" for column in _STEP_KEY),
)
_INSERT_STEPS: Final = _insert("saga_step", WRITTEN_STEP_COLUMNS)
_MARK: Final = (
    "UPDATE saga_step SET send_after = NULL, sent_at = :now, send_error = '', updated_at = :now "
    "WHERE command_id IN (SELECT value FROM json_each(:ids)) AND send_after IS NOT NULL"
)
_CLAIMABLE: Final = (
    f"SELECT {_listed(STEP_COLUMNS, 's.')}, s.body, i.name, i.trace "
    "FROM saga_step s JOIN saga_instance i ON i.id = s.saga_id "
    f"WHERE s.send_after <= :now AND i.paused_at IS NULL AND i.status IN ({_LIVE}) "
    "ORDER BY s.send_after, s.seq LIMIT :limit"
)
_CLAIM: Final = "UPDATE saga_step SET send_after = ?, send_attempts = send_attempts + 1 WHERE " + " AND ".join(
    f"{column} = ?" for column in _STEP_KEY
)
_PUT_OFF: Final = "UPDATE saga_step SET send_after = ?, send_error = ? WHERE command_id = ? AND send_after IS NOT NULL"
