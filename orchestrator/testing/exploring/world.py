"""Everything there is while a saga is explored: what the store holds, what is under way, what participants did."""

from __future__ import annotations

import marshal
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cached_property, lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast
from uuid import UUID

from messaging.inbox import Claim
from orchestrator.instance import RESOLVED, Direction, SagaInstance, StepKey, StepRecord, StepStatus
from orchestrator.memory import MemoryTables

START: Final = datetime(2030, 1, 1, tzinfo=UTC)
SAGA_ID: Final = UUID("00000000-0000-7000-8000-000000000001")


class Sent(NamedTuple):
    """A command as it left: one attempt of one direction of a step."""

    step: StepKey
    round: int
    attempt: int
    message_id: str
    idempotency_key: str
    compensates: str
    participant: str
    wire_name: str
    body: str


class Answered(NamedTuple):
    """A reply on its way back."""

    to: Sent
    outcome: str
    error_code: str
    body: str


class Spent(NamedTuple):
    """What has gone wrong on the way here, by kind. Each kind has a bound, and so has the sum of all but refusals."""

    delays: int = 0
    """Commands and replies that came late: after anything else, or so late that it is never."""
    duplicates: int = 0
    crashes: int = 0
    retries: int = 0
    """Faults that participants reported."""
    refused_undos: int = 0
    stray_events: int = 0
    """Events that came when nobody waited."""
    requests: int = 0
    """What operators asked for."""
    refusals: int = 0

    @property
    def faults(self) -> int:
        """All but refusals, which are business as usual."""
        return sum(self) - self.refusals


NOTHING: Final = Spent()


@dataclass(frozen=True, eq=False)
class World:
    """One state of the whole system, at rest: no transaction is open, nothing is half done.

    Worlds are equal if the same may follow from them: instants count by their distance from `now`, and what
    is only kept for people to read does not count. The tables are not to be changed.
    """

    now: datetime
    tables: MemoryTables
    marks: tuple[UUID, ...] = ()
    """What the engine's process knows to be confirmed and has not written yet; lost when it is killed."""
    commands: tuple[Sent, ...] = ()
    """On their way to participants, which take them before anything else happens."""
    replies: tuple[Answered, ...] = ()
    """On their way to the engine, which takes them in any order, before time passes."""
    late_commands: tuple[Sent, ...] = ()
    """Held up: they arrive when something about their step has just changed, or never. Sorted."""
    late_replies: tuple[Answered, ...] = ()
    just_changed: frozenset[str] = frozenset()
    """Steps of which something has just changed, or all once the saga has ended."""
    to_come: tuple[str, ...] = ()
    """Waits whose event the engine has not taken yet."""
    ledger: tuple[tuple[str, Claim], ...] = ()
    """The inboxes of all participants that dedupe, by idempotency key."""
    in_effect: frozenset[str] = frozenset()
    """Labels of steps, of items too, that participants have carried out and not undone."""
    sent: frozenset[Sent] = frozenset()
    """All that ever reached the broker."""
    spent: Spent = NOTHING

    @property
    def saga(self) -> SagaInstance:
        """The saga, as committed."""
        return self.tables.sagas[SAGA_ID]

    @property
    def under_way(self) -> tuple[int, ...]:
        """How many messages are on their way: what most changes change, and is quickly compared."""
        return len(self.commands), len(self.replies), len(self.late_commands), len(self.late_replies)

    @property
    def late(self) -> Iterator[Sent]:
        """The commands that are late, and those whose replies are."""
        yield from self.late_commands
        yield from (reply.to for reply in self.late_replies)

    @cached_property
    def identity(self) -> bytes:
        """A digest of all that decides what may follow, but for what may yet go wrong."""
        return self._digest(frozenset())

    @cached_property
    def identity_without_copies(self) -> bytes:
        """The same where no copy of an old message can come any more: of what is undone only that counts."""
        undone = {
            key.label
            for key, record in self.saga.steps.items()
            if key.direction is Direction.COMPENSATION and record.status is StepStatus.SUCCEEDED
        }
        under_way = {sent.step.label for sent in self.commands} | {reply.to.step.label for reply in self.replies}
        return self._digest(frozenset(undone - under_way - {sent.step.label for sent in self.late}))

    def _digest(self, over: frozenset[str]) -> bytes:
        return blake2b(marshal.dumps(tuple(self._parts(over)), 2), digest_size=16).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, World) and (self.identity, self.spent) == (other.identity, other.spent)

    def __hash__(self) -> int:
        return hash((self.identity, self.spent))

    def _parts(self, over: frozenset[str]) -> Iterator[Any]:
        saga, tables, now = self.saga, self.tables, self.now
        yield _plain(saga, now, but=_NOT_OF_A_SAGA)
        yield saga.first_cause is None
        for key in sorted(saga.steps):
            record = saga.steps[key]
            if key.label in over:
                yield key.label, key.direction.value, record.status.value, record.error_code == RESOLVED
                continue
            yield _of_open_record(record, now) if record.status.open else _of_closed_record(record)
            yield tables.bodies.get((saga.id, key)) if record.status.open else None
        for _, kept in sorted(tables.signals.items()):
            yield None if kept.taken else (kept.signal.kind, kept.signal.body, bool(kept.error))
        for _, event in sorted(tables.events.items()):
            yield event.event.message_id, event.event.key, event.consumed_by is None, _since(event.arrived_at, now)
        yield sorted((row.resource, row.step, row.held) for row in tables.locks.values())
        yield sorted((one.envelope.type, one.envelope.body) for one in tables.outgoing.values())
        yield [str(mark) for mark in self.marks]
        for commands in (self.commands, self.late_commands):
            yield [sent.message_id for sent in commands]
        for replies in (self.replies, self.late_replies):
            yield [(one.to.message_id, *one[1:]) for one in replies]
        yield sorted(self.just_changed & {late.step.label for late in self.late})
        yield self.to_come
        claims = ((key, claim) for key, claim in self.ledger if label_of(key) not in over)
        yield [(key, claim.undone, claim.answer and claim.answer.outcome) for key, claim in claims]
        yield sorted(self.in_effect)
        moving = {key for key, record in saga.steps.items() if record.status.open} | {late.step for late in self.late}
        yield sorted(sent.message_id for sent in self.sent if sent.step in moving)


def label_of(idempotency_key: str) -> str:
    """The step, with the item, whose command has this key: `<saga>/<step>[/<item>]/<direction>#<round>`."""
    return idempotency_key.partition("/")[2].rpartition("/")[0]


_NOT_OF_A_SAGA: Final = frozenset(
    {"id", "pin", "business_key", "trace", "revision", "started_at", "updated_at", "ended_at", "steps", "seq"}
    | {"first_cause", "current_step", "items"}
)
_NOT_OF_A_RECORD: Final = frozenset({"body", "reply", "ended_at", "error_text", "send_attempts"})
_NOT_OF_A_CLOSED_RECORD: Final = _NOT_OF_A_RECORD | {
    *("started_at", "sent_at", "wire_name", "participant", "awaited_key", "compensates"),
    *("attempt", "tries", "unanswered", "command_id"),
}


def _of_open_record(record: StepRecord, now: datetime) -> Any:
    return _plain(record, now, but=_NOT_OF_A_RECORD), record.send_attempts > 0


def _of_closed_record(record: StepRecord) -> Any:
    """Kept by the record's place in memory: worlds share their records, and a hash of all its fields costs more."""
    known = _closed.get(id(record))
    if known is None or known[0] is not record:
        if len(_closed) > _MOST_KEPT:
            _closed.clear()
        known = record, (_plain(record, START, but=_NOT_OF_A_CLOSED_RECORD), record.command_id is None)
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
