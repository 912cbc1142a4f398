"""What a batch decided, written on PostgreSQL by one statement: all of it, or nothing."""

# ruff: noqa: S608 - what is pasted into statements are names of this package; values are parameters

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import Connection, Dialect

from orchestrator.instance import StepKey
from orchestrator.rising_ids import new_id
from orchestrator.signals import Decision
from orchestrator.sql.arrays import columnwise, listed, unnested
from orchestrator.sql.hot import named
from orchestrator.sql.rows import (
    UPDATED_INSTANCE_COLUMNS,
    WRITTEN_STEP_COLUMNS,
    RowValues,
    instance_update,
    step_values,
)
from orchestrator.sql.statements import Statement

STEP_KEY: Final = ("saga_id", "step", "direction", "branch")
ATTEMPT_COLUMNS: Final = ("command_id", *STEP_KEY, "round", "attempt")
_MADE_ON: Final = ("made_on",)
_HISTORY_COLUMNS: Final = ("id", "saga_id", "at", "kind", "step", "text")

_CHANGED: Final = "changed"
_COLUMNS: Final[Mapping[str, tuple[str, Sequence[str]]]] = {
    _CHANGED: ("saga_step", WRITTEN_STEP_COLUMNS),
    "added": ("saga_step", WRITTEN_STEP_COLUMNS),
    "replaced": ("saga_attempt", ATTEMPT_COLUMNS),
    "noted": ("saga_history", _HISTORY_COLUMNS),
}
"""What there may be to write besides instances: into which table, and which of its columns."""


class Writes:
    """Writes decisions on sagas whose stored revision is the loaded one; locked already or not."""

    def __init__(self, dialect: Dialect, schema: str | None) -> None:
        self._statement = cache(lambda *parts: Statement(named(schema, _written(parts)), dialect))

    def write(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> bool:
        """Write all, of at least one, or nothing where a saga is not what its decision was made on; return whether."""
        rows = {part: found for part, found in _rows(decisions, now).items() if found}
        values = columnwise(UPDATED_INSTANCE_COLUMNS, [instance_update(decision.instance) for decision in decisions])
        values |= columnwise(_MADE_ON, [(decision.made_on,) for decision in decisions])
        for part, found in rows.items():
            values |= columnwise(_COLUMNS[part][1], found, f"{part}_")
        written = self._statement(*rows).rows(connection, {**values, "sagas": len(decisions)})[0][0]
        return bool(written == len(decisions))


def _rows(decisions: Sequence[Decision], now: datetime) -> dict[str, list[RowValues]]:
    return {
        _CHANGED: [step_values(d.instance.id, d.steps[key], now) for d in decisions for key in d.changed],
        "added": [step_values(d.instance.id, d.steps[key], now) for d in decisions for key in d.added],
        "replaced": [
            (old.command_id, d.instance.id, *_words(old.key), old.round, old.attempt)
            for d in decisions
            for old in d.replaced
        ],
        "noted": [
            (new_id(), d.instance.id, now, note.kind, note.step, note.text)
            for d in decisions
            for note in d.notes
            if not note.unusable
        ],
    }


def _words(key: StepKey) -> tuple[str, str, str]:
    return key.step, key.direction.value, key.branch


def _set(columns: Iterable[str], **special: str) -> str:
    return ", ".join(f"{column} = {special.get(column, f'v.{column}')}" for column in (*columns, *special))


# Locked in one order before anything is written, so that two batches never wait for each other in a circle. The instant
# of the last change tells as well: a database that lost its last commits comes to the same revisions again.
_HELD: Final = (
    f"SELECT i.id FROM {{saga_instance}} i JOIN {unnested(('id', 'revision', *_MADE_ON))} "
    "ON i.id = v.id AND i.revision = v.revision AND i.updated_at = COALESCE(v.made_on, i.updated_at) "
    "ORDER BY i.id FOR NO KEY UPDATE OF i"
)
# Looked at once, before the first row of a part: so no part begins before all sagas are held.
_ALL_HELD: Final = "(SELECT count(*) FROM held) = CAST(:sagas AS bigint)"
_UPDATE_INSTANCES: Final = (
    f"UPDATE {{saga_instance}} i SET revision = i.revision + 1, {_set(UPDATED_INSTANCE_COLUMNS[2:])} "
    f"FROM {unnested(UPDATED_INSTANCE_COLUMNS)} WHERE i.id = v.id AND {_ALL_HELD}"
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
    f"FROM {unnested(WRITTEN_STEP_COLUMNS, f'{_CHANGED}_')} WHERE {_ALL_HELD} AND "
    + " AND ".join(f"s.{column} = v.{column}" for column in STEP_KEY)
)


def _inserted(part: str) -> str:
    table, columns = _COLUMNS[part]
    into = f"INSERT INTO {{{table}}} ({listed(columns)})"
    return f"{into} SELECT {listed(columns, 'v.')} FROM {unnested(columns, f'{part}_')} WHERE {_ALL_HELD}"


def _written(parts: Sequence[Any]) -> str:
    """One statement for what a batch writes; it gives the number of instances that had the loaded revision."""
    texts = {"held": _HELD, "instances": _UPDATE_INSTANCES}
    texts |= {part: _UPDATE_STEPS if part == _CHANGED else _inserted(part) for part in parts}
    return f"WITH {', '.join(f'{name} AS ({text})' for name, text in texts.items())} SELECT count(*) FROM held"
