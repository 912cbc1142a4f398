"""Rows to frozen values and back, by position: the two ends of the hot statements.

Where a database keeps ids and instants as text, `from_text` and `to_text` go in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, TypeAlias, cast
from uuid import UUID

from orchestrator.copies import by_position
from orchestrator.instance import (
    BlockedReason,
    Direction,
    FirstCause,
    Parent,
    Pin,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepRecord,
    StepStatus,
)
from orchestrator.sql.types import id_from_text, id_text, instant_from_text, instant_text

RowValues: TypeAlias = Sequence[Any]

INSTANCE_COLUMNS: Final = (
    "id",
    "name",
    "version",
    "fingerprint",
    "status",
    "state",
    "revision",
    "started_at",
    "updated_at",
    "wake_at",
    "business_key",
    "seq",
    "current_step",
    "deadline",
    "blocked_reason",
    "blocked_step",
    "blocked_from",
    "blocked_at",
    "paused_at",
    "failed_step",
    "error_code",
    "error_text",
    "ended_at",
    "trace",
    "parent_id",
    "root_id",
    "parent_step",
)
"""What `saga_of` reads, in this order."""

STEP_COLUMNS: Final = (
    "saga_id",
    "step",
    "direction",
    "branch",
    "seq",
    "status",
    "started_at",
    "wire_name",
    "schema_version",
    "participant",
    "round",
    "attempt",
    "tries",
    "unanswered",
    "command_id",
    "compensates",
    "send_after",
    "send_attempts",
    "sent_at",
    "deadline",
    "awaited_key",
    "error_code",
    "error_text",
    "ended_at",
    "memo",
)
"""What `record_of` reads, in this order; body and reply are not among them."""

UPDATED_INSTANCE_COLUMNS: Final = (
    "id",
    "revision",
    "status",
    "state",
    "wake_at",
    "seq",
    "current_step",
    "deadline",
    "blocked_reason",
    "blocked_step",
    "blocked_from",
    "blocked_at",
    "paused_at",
    "failed_step",
    "error_code",
    "error_text",
    "updated_at",
    "ended_at",
)
"""What `instance_update` gives; the first two find the row."""

WRITTEN_STEP_COLUMNS: Final = (
    "saga_id",
    "step",
    "direction",
    "branch",
    "seq",
    "status",
    "started_at",
    "wire_name",
    "participant",
    "round",
    "attempt",
    "tries",
    "unanswered",
    "command_id",
    "compensates",
    "body",
    "send_after",
    "send_attempts",
    "sent_at",
    "deadline",
    "awaited_key",
    "waiting_key",
    "reply",
    "error_code",
    "error_text",
    "updated_at",
    "ended_at",
    "schema_version",
    "memo",
)
"""What `step_values` gives; the first four find the row."""

_STATUSES: Final = {status.value: status for status in SagaStatus}
_STEP_STATUSES: Final = {status.value: status for status in StepStatus}
_DIRECTIONS: Final = {direction.value: direction for direction in Direction}
_REASONS: Final[dict[str | None, BlockedReason | None]] = {
    None: None,
    **{reason.value: reason for reason in BlockedReason},
}


_IDS: Final = {"id", "saga_id", "command_id", "parent_id", "root_id"}
_INSTANTS: Final = {
    *("started_at", "updated_at", "ended_at", "wake_at", "deadline"),
    *("blocked_at", "paused_at", "send_after", "sent_at"),
}


def from_text(columns: Sequence[str]) -> Callable[[RowValues], RowValues]:
    """Make a function that reads rows of these columns, where ids and instants are text."""
    return _converting(columns, id_from_text, instant_from_text)


def to_text(columns: Sequence[str]) -> Callable[[RowValues], RowValues]:
    """Make a function that writes ids and instants in rows of these columns as text."""
    return _converting(columns, id_text, instant_text)


def _converting(
    columns: Sequence[str], of_id: Callable[[Any], Any], of_instant: Callable[[Any], Any]
) -> Callable[[RowValues], RowValues]:
    work = [(place, of_id) for place, column in enumerate(columns) if column in _IDS]
    work += [(place, of_instant) for place, column in enumerate(columns) if column in _INSTANTS]

    def convert(row: RowValues) -> RowValues:
        values = list(row)
        for place, of_value in work:
            value = values[place]
            if value is not None:
                values[place] = of_value(value)
        return tuple(values)

    return convert


@lru_cache(1024)
def _pin(name: str, version: int, fingerprint: str) -> Pin:
    return Pin(name, version, fingerprint)


@lru_cache(4096)
def _key(step: str, direction: str, branch: str) -> StepKey:
    return StepKey(step, _DIRECTIONS[direction], branch)


def sagas_of(instances: Iterable[RowValues], steps: Iterable[RowValues]) -> dict[UUID, SagaInstance]:
    """Put instances and their records together; instances keep their order."""
    records: dict[UUID, dict[StepKey, StepRecord]] = {}
    for row in steps:
        record = record_of(row)
        records.setdefault(row[0], {})[record.key] = record
    return {row[0]: saga_of(row, records.get(row[0]) or {}) for row in instances}


# Columns and fields stand in one order.
_instance_of: Final = cast("Callable[..., SagaInstance]", SagaInstance)  # the last fields have defaults
_record_of: Final = by_position(StepRecord)


def saga_of(row: RowValues, steps: dict[StepKey, StepRecord]) -> SagaInstance:
    """Read one row of `INSTANCE_COLUMNS`."""
    return _instance_of(
        row[0],
        _pin(row[1], row[2], row[3]),
        _STATUSES[row[4]],
        *row[5:14],
        _REASONS[row[14]],
        row[15],
        None if row[16] is None else _STATUSES[row[16]],
        row[17],
        row[18],
        None if row[19] is None else FirstCause(row[19], row[20], row[21]),
        row[22],
        row[23],
        None if row[24] is None else Parent(row[24], row[25], row[26]),
        steps,
    )


def record_of(row: RowValues, body: str | None = None) -> StepRecord:
    """Read one row of `STEP_COLUMNS`, which has no body and no reply."""
    key, status = _key(row[1], row[2], row[3]), _STEP_STATUSES[row[5]]
    return _record_of(key, row[4], status, *row[6:16], body, *row[16:21], None, *row[21:25])


def key_of(step: str, direction: str, branch: str) -> StepKey:
    """Which direction of which step a row is about."""
    return _key(step, direction, branch)


def instance_update(saga: SagaInstance) -> tuple[Any, ...]:
    """Give the values of `UPDATED_INSTANCE_COLUMNS`; the revision is the loaded one."""
    cause = saga.first_cause
    return (
        saga.id,
        saga.revision,
        saga.status.value,
        saga.state,
        saga.wake_at,
        saga.seq,
        saga.current_step,
        saga.deadline,
        None if saga.blocked_reason is None else saga.blocked_reason.value,
        saga.blocked_step,
        None if saga.blocked_from is None else saga.blocked_from.value,
        saga.blocked_at,
        saga.paused_at,
        None if cause is None else cause.step,
        None if cause is None else cause.code,
        None if cause is None else cause.text,
        saga.updated_at,
        saga.ended_at,
    )


def step_values(saga_id: UUID, record: StepRecord, now: datetime) -> tuple[Any, ...]:
    """Give the values of `WRITTEN_STEP_COLUMNS`."""
    key = record.key
    return (
        saga_id,
        key.step,
        key.direction.value,
        key.branch,
        record.seq,
        record.status.value,
        record.started_at,
        record.wire_name,
        record.participant,
        record.round,
        record.attempt,
        record.tries,
        record.unanswered,
        record.command_id,
        record.compensates,
        record.body,
        record.send_after,
        record.send_attempts,
        record.sent_at,
        record.deadline,
        record.awaited_key,
        record.awaited_key if record.status is StepStatus.WAITING else None,
        record.reply,
        record.error_code,
        record.error_text,
        now,
        record.ended_at,
        record.schema_version,
        record.memo,
    )


def new_instance_values(saga: SagaInstance) -> dict[str, Any]:
    """Give the columns of a saga that starts, for a statement that knows their types."""
    cause = saga.first_cause
    return {
        "id": saga.id,
        "name": saga.pin.name,
        "version": saga.pin.version,
        "fingerprint": saga.pin.fingerprint,
        "status": saga.status.value,
        "state": saga.state,
        "revision": saga.revision,
        "started_at": saga.started_at,
        "updated_at": saga.updated_at,
        "wake_at": saga.wake_at,
        "business_key": saga.business_key,
        "seq": saga.seq,
        "current_step": saga.current_step,
        "deadline": saga.deadline,
        "blocked_reason": None if saga.blocked_reason is None else saga.blocked_reason.value,
        "blocked_step": saga.blocked_step,
        "blocked_from": None if saga.blocked_from is None else saga.blocked_from.value,
        "blocked_at": saga.blocked_at,
        "paused_at": saga.paused_at,
        "failed_step": None if cause is None else cause.step,
        "error_code": None if cause is None else cause.code,
        "error_text": None if cause is None else cause.text,
        "ended_at": saga.ended_at,
        "trace": saga.trace,
        "parent_id": None if saga.parent is None else saga.parent.id,
        "root_id": None if saga.parent is None else saga.parent.root,
        "parent_step": None if saga.parent is None else saga.parent.step,
    }
