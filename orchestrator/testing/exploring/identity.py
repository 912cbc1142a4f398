"""Which worlds are equal: a digest of all from which something may follow, and of nothing else."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import fields
from datetime import datetime, timedelta
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

from orchestrator.instance import (
    CHILD,
    ITEMS,
    LOCAL,
    LOCKS,
    RESOLVED,
    TIMER,
    SagaInstance,
    StepRecord,
    StepStatus,
)
from orchestrator.testing.exploring.family import label_at

if TYPE_CHECKING:
    from orchestrator.testing.exploring.world import World


def identity_of(world: World, over: frozenset[str], *, copies: bool) -> bytes:
    """The digest of a world.

    Args:
        world: which.
        over: labels of steps of which it matters only how they ended.
        copies: whether copies of old messages, and of redeemed tokens, may yet come.
    """
    parts = [*_stored(world, over), *_under_way(world), *_done(world, over)]
    if copies:
        parts.append(sorted(sent.message_id for sent in world.redeemed))
    return blake2b(marshal.dumps(tuple(parts), 2), digest_size=16).digest()


def _stored(world: World, over: frozenset[str]) -> Iterator[Any]:
    tables, now = world.tables, world.now
    for seat, saga in world.sagas.items():
        yield seat
        yield from _of_saga(world, seat, saga, over)
    for _, kept in sorted(tables.signals.items()):
        if not kept.taken:
            signal = kept.signal
            yield str(signal.saga_id), signal.kind, signal.body, bool(kept.error)
    for _, event in sorted(tables.events.items()):
        yield event.event.message_id, event.event.key, event.consumed_by is None, _since(event.arrived_at, now)
    yield sorted((str(row.saga_id), row.resource, row.step, row.held) for row in tables.locks.values())
    yield sorted((one.envelope.type, one.envelope.body) for one in tables.outgoing.values())


def _of_saga(world: World, seat: str, saga: SagaInstance, over: frozenset[str]) -> Iterator[Any]:
    now = world.now
    yield _plain(saga, now, but=_NOT_OF_A_SAGA)
    yield saga.first_cause is None
    for key in sorted(saga.steps):
        record = saga.steps[key]
        if over and label_at(seat, key) in over:
            yield key.label, key.direction.value, record.status.value, record.error_code == RESOLVED
            continue
        yield _of_open_record(record, now) if record.status.open else _of_closed_record(record)
        yield world.tables.bodies.get((saga.id, key)) if record.status.open else None


def _under_way(world: World) -> Iterator[Any]:
    yield [str(mark) for mark in world.marks]
    yield [(due.label, due.step.direction.value) for due in world.local]
    for commands in (world.commands, world.tokens, world.late_commands, world.late_tokens):
        yield [sent.message_id for sent in commands]
    for replies in (world.replies, world.late_replies):
        yield [(one.to.message_id, *one[1:]) for one in replies]
    yield sorted(world.just_changed & {late.label for late in world.late})
    yield sorted(world.came)


def _done(world: World, over: frozenset[str]) -> Iterator[Any]:
    ids = {str(saga.id): seat for seat, saga in world.sagas.items()}
    claims = ((key, claim) for key, claim in world.ledger if not over or _label_of(key, ids) not in over)
    yield [(key, claim.undone, claim.answer and claim.answer.outcome) for key, claim in claims]
    yield sorted(world.in_effect)
    yield world.written
    moving = {
        (seat, key) for seat, saga in world.sagas.items() for key, record in saga.steps.items() if record.status.open
    }
    moving |= {(late.seat, late.step) for late in world.late}
    yield sorted(sent.message_id for sent in world.sent if (sent.seat, sent.step) in moving)


def _label_of(idempotency_key: str, seats: dict[str, str]) -> str:
    """The step whose command has this key: `<saga>/<step>[/<item>]/<direction>#<round>`."""
    saga, _, rest = idempotency_key.partition("/")
    seat, label = seats[saga], rest.rpartition("/")[0]
    return f"{seat}:{label}" if seat else label


_NOT_OF_A_SAGA: Final = frozenset(
    {"id", "pin", "business_key", "trace", "revision", "started_at", "updated_at", "ended_at", "steps", "seq"}
    | {"first_cause", "current_step", "items", "parent"}
)
_NOT_OF_A_RECORD: Final = frozenset({"body", "reply", "ended_at", "error_text", "send_attempts"})
_NOT_OF_WHAT_AWAITS_NO_EVENT: Final = _NOT_OF_A_RECORD | {"started_at"}
"""Since when something is awaited says only which events are too old for it."""
_NO_EVENTS: Final = frozenset({TIMER, LOCAL, ITEMS, CHILD, LOCKS})
_NOT_OF_A_CLOSED_RECORD: Final = _NOT_OF_A_RECORD | {
    *("started_at", "sent_at", "wire_name", "participant", "awaited_key", "compensates"),
    *("attempt", "tries", "unanswered", "command_id"),
}


def _of_open_record(record: StepRecord, now: datetime) -> Any:
    awaits_event = record.status is StepStatus.WAITING and record.wire_name not in _NO_EVENTS
    but = _NOT_OF_A_RECORD if awaits_event else _NOT_OF_WHAT_AWAITS_NO_EVENT
    return _plain(record, now, but=but), record.send_attempts > 0


def _of_closed_record(record: StepRecord) -> Any:
    """Kept by the record's place in memory: worlds share their records, and a hash of all its fields costs more."""
    known = _closed.get(id(record))
    if known is None or known[0] is not record:
        if len(_closed) > _MOST_KEPT:
            _closed.clear()
        known = record, (_plain(record, record.started_at, but=_NOT_OF_A_CLOSED_RECORD), record.command_id is None)
        _closed[id(record)] = known
    return known[1]


_MOST_KEPT: Final = 100_000
_closed: Final[dict[int, tuple[StepRecord, Any]]] = {}


def _since(instant: datetime, now: datetime) -> int:
    """How far off an instant is, in microseconds; for what is due already it does not matter since when."""
    return (instant - now) // _MICROSECOND


_MICROSECOND: Final = timedelta(microseconds=1)


def _plain(value: Any, now: datetime, but: frozenset[str] = frozenset()) -> Any:
    """A value as text, numbers and tuples, with instants by their distance from now."""
    match value:
        case None | bool() | int() | float() | bytes():
            return value
        case Enum():
            return value.value
        case str():
            return str(value)
        case datetime():
            return _since(value, now)
        case timedelta():
            return value // _MICROSECOND
        case UUID():
            return value.bytes
        case tuple() | list():
            return tuple(_plain(item, now) for item in cast("tuple[Any, ...]", value))
        case _:
            names = _names_of(value.__class__)
            return tuple(_plain(getattr(value, name), now) for name in names if name not in but)


@lru_cache
def _names_of(cls: type[Any]) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))
