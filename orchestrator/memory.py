"""A store inside the process, transactional as a database is: for tests, tutorials and simulations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast
from uuid import UUID

from messaging.transport import Outgoing
from orchestrator.errors import ConcurrentUpdate
from orchestrator.granting import LockRow
from orchestrator.instance import BlockedReason, Item, Pin, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.rising_ids import RisingIds
from orchestrator.roster import at_hand
from orchestrator.signal_codec import ACTIONS, UPGRADE, upgrade_kind
from orchestrator.signals import Decision, LockChange, LocksAsked, LocksLetGo, Note
from orchestrator.store import (
    AuditEntry,
    Clock,
    CommandRef,
    EventMatch,
    Locked,
    NewSignal,
    ReceivedEvent,
    SagaCommand,
    StartingEvent,
    StoredSignal,
    UnmatchedMessage,
    UnreadEvent,
)
from orchestrator.workers import Worker

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

K = TypeVar("K")
V = TypeVar("V")

_UNMATCHED_KEPT: Final = 10_000
_MISSING: Final = object()


@dataclass(frozen=True, slots=True)
class KeptSignal:
    """A row of `saga_signal`."""

    signal: StoredSignal
    error: str = ""
    taken: bool = False

    @property
    def pending(self) -> bool:
        """Whether the saga has yet to be told."""
        return not self.taken and not self.error


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """A row of `saga_event`."""

    id: UUID
    event: ReceivedEvent
    arrived_at: datetime
    consumed_by: UUID | None = None


@dataclass(slots=True)
class MemoryTables:
    """What a `MemoryStore` keeps; tests may look at it between transactions, and change nothing."""

    sagas: dict[UUID, SagaInstance] = field(default_factory=dict[UUID, SagaInstance])
    """Their records carry no body and no reply: those are in `bodies` and `replies`."""
    wakes: dict[UUID, datetime] = field(default_factory=dict[UUID, datetime])
    items: dict[UUID, tuple[Item, ...]] = field(default_factory=dict[UUID, tuple[Item, ...]])
    bodies: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    replies: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    unsent: dict[tuple[UUID, StepKey], str] = field(default_factory=dict[tuple[UUID, StepKey], str])
    """Commands that have something to send, with what went wrong last."""
    commands: dict[UUID, CommandRef] = field(default_factory=dict[UUID, CommandRef])
    keys: dict[tuple[str, str], UUID] = field(default_factory=dict[tuple[str, str], UUID])
    signals: dict[UUID, KeptSignal] = field(default_factory=dict[UUID, KeptSignal])
    events: dict[UUID, KeptEvent] = field(default_factory=dict[UUID, KeptEvent])
    event_ids: dict[tuple[str, str], UUID] = field(default_factory=dict[tuple[str, str], UUID])
    history: dict[UUID, tuple[UUID, Note]] = field(default_factory=dict[UUID, tuple[UUID, Note]])
    unmatched: dict[UUID, UnmatchedMessage] = field(default_factory=dict[UUID, UnmatchedMessage])
    outgoing: dict[UUID, Outgoing] = field(default_factory=dict[UUID, Outgoing])
    audit: dict[UUID, AuditEntry] = field(default_factory=dict[UUID, AuditEntry])
    workers: dict[UUID, tuple[Worker, datetime]] = field(default_factory=dict[UUID, tuple[Worker, datetime]])
    locks: dict[UUID, LockRow] = field(default_factory=dict[UUID, LockRow])

    def copied(self) -> MemoryTables:
        """The same rows in tables of their own."""
        return MemoryTables(*(dict(getattr(self, table.name)) for table in fields(self)))


class _NoSession:
    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(f"the memory store has no database for session.{name}. Use a SqlStore, on SQLite say")


class SystemClock:
    """This process' clock."""

    def now(self) -> datetime:
        """The current instant."""
        return datetime.now(UTC)


class MemoryStore:
    """Keeps sagas in dictionaries. One transaction runs at a time, so nothing is ever locked by others.

    Closing keeps everything, so that `open` after `close` is a restart of everything but the process.

    Args:
        clock: what time it is.
        tables: what it keeps already.
    """

    def __init__(self, clock: Clock | None = None, tables: MemoryTables | None = None) -> None:
        self.tables: Final = MemoryTables() if tables is None else tables
        self._clock: Clock = clock or SystemClock()
        self._lock = asyncio.Lock()
        self._new_id = RisingIds()

    async def open(self) -> None:
        """There is nothing to connect to."""

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[MemoryTransaction]:
        """Begin a transaction; commits when the block ends, rolls back when it raises."""
        async with self._lock:
            transaction = MemoryTransaction(self.tables, self._clock, self._new_id)
            try:
                yield transaction
            except BaseException:
                transaction.roll_back()
                raise

    async def has_due(self) -> bool:
        """Whether a scan may find something."""
        now, tables = self._clock.now(), self.tables
        if any(wake_at <= now for wake_at in tables.wakes.values()) or any(k.pending for k in tables.signals.values()):
            return True
        unsent = (tables.sagas[saga_id].steps[key].send_after for saga_id, key in tables.unsent)
        return any(send_after is not None and send_after <= now for send_after in unsent)

    def is_transient(self, error: BaseException) -> bool:
        """Nothing here gets better by itself but a lost race."""
        return isinstance(error, ConcurrentUpdate)

    async def close(self) -> None:
        """Keep everything."""

    def saga(self, saga_id: UUID) -> SagaInstance:
        """Return a saga as committed, with the bodies and replies of its records.

        Raises:
            KeyError: there is none.
        """
        tables = self.tables
        saga = tables.sagas[saga_id]
        return replace(
            saga,
            steps={
                key: replace(record, body=tables.bodies.get((saga_id, key)), reply=tables.replies.get((saga_id, key)))
                for key, record in saga.steps.items()
            },
        )


class MemoryTransaction:
    """One transaction: writes go to the tables at once, and are undone when it rolls back."""

    def __init__(self, tables: MemoryTables, clock: Clock, new_id: RisingIds) -> None:
        self._tables, self._clock, self._new_id = tables, clock, new_id
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        self._now: datetime | None = None
        self._locked: set[UUID] = set()

    def roll_back(self) -> None:
        """Put back what stood there before, in reverse order."""
        for table, key, before in reversed(self._undo):
            if before is _MISSING:
                table.pop(key, None)
            else:
                table[key] = before
        self._undo.clear()

    async def now(self) -> datetime:
        """The clock's instant; the one read at the last lock once something is locked."""
        return self._now or self._clock.now()

    async def lock_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        """Find attempts by their ids, replaced ones included, and load their sagas."""
        commands = self._tables.commands
        refs = {found: commands[found] for found in command_ids if found in commands}
        return refs, await self.lock([ref.saga_id for ref in refs.values()])

    async def lock(self, saga_ids: Sequence[UUID]) -> Locked:
        """Load these sagas; unknown ids are left out."""
        return self._load(sorted(saga_id for saga_id in set(saga_ids) if saga_id in self._tables.sagas))

    async def lock_due(self, known: Sequence[Pin], *, limit: int, only_new: bool = False) -> Locked:
        """Load sagas of known definitions whose `wake_at` has come, earliest first."""
        now, pins, sagas = self._clock.now(), set(known), self._tables.sagas
        due = [
            (wake_at, saga_id)
            for saga_id, wake_at in self._tables.wakes.items()
            if wake_at <= now and sagas[saga_id].pin in pins and not (only_new and sagas[saga_id].seq)
        ]
        return self._load([saga_id for _, saga_id in sorted(due)[: max(limit, 0)]])

    async def lock_signalled(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas of known definitions that have pending signals; paused ones, if operators asked for something."""
        pins, sagas = set(known), self._tables.sagas
        told = {
            kept.signal.saga_id
            for kept in self._tables.signals.values()
            if kept.pending
            and not kept.signal.kind.startswith(UPGRADE)
            and (saga := sagas.get(kept.signal.saga_id))
            and saga.pin in pins
            and (saga.paused_at is None or kept.signal.kind in ACTIONS)
        }
        return self._load(sorted(told)[: max(limit, 0)])

    async def lock_overdue(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """Load sagas of definitions other than these whose `wake_at` has passed by so much."""
        since, pins, sagas = self._clock.now() - by, set(known), self._tables.sagas
        found = [one for one, wake_at in self._tables.wakes.items() if wake_at <= since and sagas[one].pin not in pins]
        return self._load(sorted(found)[: max(limit, 0)])

    async def lock_needing_version(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas of known definitions that are blocked with `needs_version`."""
        pins, reason = set(known), BlockedReason.NEEDS_VERSION
        found = [saga.id for saga in self._tables.sagas.values() if saga.blocked_reason is reason and saga.pin in pins]
        return self._load(sorted(found)[: max(limit, 0)])

    async def lock_upgrading(self, targets: Sequence[Pin], *, limit: int) -> Locked:
        """Load sagas for which an upgrade to one of these versions is pending."""
        wanted = {(pin.name, upgrade_kind(pin.version)) for pin in targets}
        pending = [kept.signal for kept in self._tables.signals.values() if kept.pending]
        asked = [(saga, one.kind) for one in pending if (saga := self._tables.sagas.get(one.saga_id))]
        found = {saga.id for saga, kind in asked if (saga.pin.name, kind) in wanted}
        return self._load(sorted(found)[: max(limit, 0)])

    async def set_pins(self, pins: Mapping[UUID, Pin]) -> None:
        """Have these sagas belong to another version."""
        for saga_id, pin in pins.items():
            self._write(replace(self._tables.sagas[saga_id], pin=pin))

    async def announce(self, worker: Worker, *, dead_after: timedelta) -> list[Worker]:
        """Note that a process is alive; return those that are."""
        now, workers = await self.now(), self._tables.workers
        self._put(workers, worker.id, (worker, now))
        for dead in [one for one, (_, heard) in workers.items() if heard < now - dead_after]:
            self._remove(workers, dead)
        return await self.workers(dead_after=dead_after)

    async def workers(self, *, dead_after: timedelta) -> list[Worker]:
        """Return the processes that are alive."""
        since = await self.now() - dead_after
        return [worker for _, (worker, heard) in sorted(self._tables.workers.items()) if heard >= since]

    async def unread_events(self, wire_names: Sequence[str], *, limit: int) -> list[UnreadEvent]:
        """Return kept events of these types that nobody has read."""
        kept = [one for _, one in sorted(self._tables.events.items()) if not one.event.key and not one.consumed_by]
        found = [one for one in kept if one.event.wire_name in wire_names]
        return [UnreadEvent(o.id, o.event.message_id, o.event.wire_name, o.event.body) for o in found[:limit]]

    async def drop_events(self, event_ids: Sequence[UUID]) -> None:
        """Delete unread events."""
        for event_id in event_ids:
            event = self._tables.events[event_id].event
            self._remove(self._tables.events, event_id)
            self._remove(self._tables.event_ids, (event.message_id, event.key))

    async def start(self, saga: SagaInstance, *, reuse_key_after_end: bool = False) -> tuple[UUID, bool]:
        """Write a new saga and its business key; return its id and True, or who has the key, and False."""
        if saga.id in self._tables.sagas:
            return saga.id, False
        if saga.business_key is not None:
            name_and_key = saga.pin.name, saga.business_key
            holder = self._tables.keys.get(name_and_key)
            if holder is not None and not (reuse_key_after_end and self._has_ended(holder)):
                return holder, False
            self._put(self._tables.keys, name_and_key, saga.id)
        self._write(replace(saga, steps={}))
        return saga.id, True

    async def save(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided.

        Raises:
            ConcurrentUpdate: a saga's stored revision is not the loaded one.
            RuntimeError: a saga is not locked in this transaction.
        """
        for decision in decisions:
            after = decision.instance
            if after.id not in self._locked:
                raise RuntimeError(f"saga {after.id} is not locked in this transaction. Lock it before saving")
            stored = self._tables.sagas[after.id]
            if stored.revision != after.revision:
                raise ConcurrentUpdate(after.id, after.revision, stored.revision)
            steps = dict(stored.steps)
            for key in (*decision.added, *decision.changed):
                steps[key] = self._write_record(after.id, after.steps[key], steps.get(key))
            self._write(replace(after, revision=after.revision + 1, steps=steps, items={}))
            if decision.items:
                self._put(self._tables.items, after.id, (*self._tables.items.get(after.id, ()), *decision.items))
            for old in decision.replaced:
                ref = CommandRef(after.id, old.key, old.round, old.attempt)
                self._put(self._tables.commands, old.command_id, ref)
            for note in decision.notes:
                if not note.unusable:
                    self._put(self._tables.history, self._new_id(), (after.id, note))

    @asynccontextmanager
    async def session(self, *, timeout: timedelta) -> AsyncGenerator[AsyncSession]:
        """There is no database here: whoever uses the session is told so."""
        yield cast("AsyncSession", _NoSession())

    async def set_traces(self, traces: Mapping[UUID, str]) -> None:
        """Write the traces of these sagas."""
        for saga_id, trace in traces.items():
            self._write(replace(self._tables.sagas[saga_id], trace=trace))

    async def mark_sent(self, command_ids: Sequence[UUID]) -> None:
        """Note that these attempts were confirmed by the broker."""
        now = await self.now()
        for saga_id, record in self._unsent(command_ids):
            self._change_record(saga_id, replace(record, send_after=None, sent_at=now))

    async def claim_unsent(self, *, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Take commands of live sagas whose `send_after` has come, earliest first."""
        now = await self.now()
        due = [
            (record.send_after, saga.id, record)
            for saga in map(self._tables.sagas.__getitem__, {saga_id for saga_id, _ in self._tables.unsent})
            if not saga.status.terminal and saga.paused_at is None
            for record in saga.steps.values()
            if record.send_after is not None and record.send_after <= now
        ]
        due.sort(key=lambda one: (one[0], one[2].seq))
        return [self._claim(saga_id, record, now + grace) for _, saga_id, record in due[: max(limit, 0)]]

    async def put_off_sends(self, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Note that attempts could not be sent: when to try again, and why."""
        for saga_id, record in self._unsent(list(problems)):
            assert record.command_id is not None
            until, error = problems[record.command_id]
            self._change_record(saga_id, replace(record, send_after=until))
            self._put(self._tables.unsent, (saga_id, record.key), error)

    async def make_unanswered_due(self, *, timeout: timedelta) -> int:
        """Make every outstanding command of a live saga due again, deadlines restarted."""
        now = await self.now()
        outstanding = [
            (saga.id, record)
            for saga in self._tables.sagas.values()
            if not saga.status.terminal
            for record in saga.steps.values()
            if record.status is StepStatus.OUTSTANDING
        ]
        for saga_id, record in outstanding:
            deadline = max(record.deadline or now, now + timeout)
            self._change_record(saga_id, replace(record, send_after=now, deadline=deadline))
        return len(outstanding)

    async def add_signals(self, signals: Sequence[NewSignal]) -> None:
        """Keep signals for sagas, in order."""
        for new in signals:
            stored = StoredSignal(self._new_id(), new.saga_id, new.kind, new.body)
            self._put(self._tables.signals, stored.id, KeptSignal(stored, new.error))

    async def pending_signals(self, saga_ids: Sequence[UUID]) -> list[StoredSignal]:
        """Signals not taken and without error of these sagas, in order of id."""
        wanted = set(saga_ids)
        return [
            kept.signal
            for _, kept in sorted(self._tables.signals.items())
            if kept.pending and kept.signal.saga_id in wanted
        ]

    async def take_signals(self, signal_ids: Sequence[UUID]) -> None:
        """Mark as taken."""
        for kept in self._signals(signal_ids):
            self._put(self._tables.signals, kept.signal.id, replace(kept, taken=True))

    async def fail_signals(self, errors: Mapping[UUID, str]) -> None:
        """Keep signals aside with what they made the definition raise."""
        for kept in self._signals(list(errors)):
            self._put(self._tables.signals, kept.signal.id, replace(kept, error=errors[kept.signal.id]))

    async def revive_signals(self, saga_ids: Sequence[UUID]) -> None:
        """Clear the error of signals kept aside, so that they are pending again."""
        wanted = set(saga_ids)
        for kept in list(self._tables.signals.values()):
            if kept.signal.saga_id in wanted and kept.error and not kept.taken:
                self._put(self._tables.signals, kept.signal.id, replace(kept, error=""))

    async def add_events(self, events: Sequence[ReceivedEvent]) -> list[UUID]:
        """Keep events; return the ids of those that are new by (message id, key)."""
        new: list[UUID] = []
        for event in events:
            if (event.message_id, event.key) not in self._tables.event_ids:
                kept = KeptEvent(self._new_id(), event, await self.now())
                self._put(self._tables.event_ids, (event.message_id, event.key), kept.id)
                self._put(self._tables.events, kept.id, kept)
                new.append(kept.id)
        return new

    async def event_matches(
        self,
        *,
        event_ids: Sequence[UUID] | None = None,
        saga_ids: Sequence[UUID] | None = None,
        limit: int = 200,
    ) -> list[EventMatch]:
        """Join kept, unconsumed, unexpired events with waiting steps, oldest event first."""
        now = await self.now()
        kept = self._kept(event_ids, now)
        if not kept:
            return []
        waits = self._waits(saga_ids)
        matches = [
            EventMatch(one.id, saga_id, key, one.event.body, one.arrived_at)
            for one in kept
            for saga_id, key in sorted(waits.get((one.event.wire_name, one.event.key), ()))
        ]
        return matches[: max(limit, 0)]

    async def starting_events(
        self, wire_names: Sequence[str], prefix: str, *, event_ids: Sequence[UUID] | None = None, limit: int = 200
    ) -> list[StartingEvent]:
        """Find kept, unconsumed, unexpired events of these types whose key begins so, oldest first."""
        kept = self._kept(event_ids, await self.now())
        wanted = [one for one in kept if one.event.wire_name in wire_names and one.event.key.startswith(prefix)]
        return [
            StartingEvent(one.id, one.event.message_id, one.event.wire_name, one.event.key, one.event.body)
            for one in wanted[: max(limit, 0)]
        ]

    async def lock_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Return those still unconsumed."""
        events = self._tables.events
        return {one for one in event_ids if one in events and events[one].consumed_by is None}

    async def consume_events(self, consumers: Mapping[UUID, UUID]) -> None:
        """Mark events as consumed by a saga."""
        for event_id, saga_id in consumers.items():
            kept = self._tables.events.get(event_id)
            if kept is not None and kept.consumed_by is None:
                self._put(self._tables.events, event_id, replace(kept, consumed_by=saga_id))

    async def change_locks(self, saga: SagaInstance, changes: Sequence[LockChange]) -> None:
        """Write what a saga asks for and lets go of, in order."""
        root = saga.parent.root if saga.parent else saga.id
        for change in changes:
            if isinstance(change, LocksAsked):
                for resource in change.resources:
                    row = LockRow(self._new_id(), resource, root, saga.id, change.step, change.waits, held=False)
                    self._put(self._tables.locks, row.id, row)
            elif isinstance(change, LocksLetGo):
                self._free(row for row in self._locks if (row.saga_id, row.step) == (saga.id, change.step))
            else:
                ended = self._has_ended(root)
                self._free(row for row in self._locks if row.root == root and ended and self._has_ended(row.saga_id))

    async def contended_locks(self) -> list[LockRow]:
        """All rows of the resources that somebody asks for, in order of asking."""
        asked = {row.resource for row in self._locks if not row.held}
        self._free(row for row in self._locks if self._has_ended(row.root) and self._has_ended(row.saga_id))
        return [row for row in self._locks if row.resource in asked]

    async def settle_locks(self, granted: Sequence[UUID], denied: Sequence[UUID]) -> None:
        """Mark these rows as held, and remove those."""
        locks = self._tables.locks
        for lock_id in granted:
            self._put(locks, lock_id, replace(locks[lock_id], held=True))
        self._free(locks[lock_id] for lock_id in denied)

    @property
    def _locks(self) -> list[LockRow]:
        return [row for _, row in sorted(self._tables.locks.items())]

    def _free(self, rows: Iterable[LockRow]) -> None:
        for row in rows:
            self._remove(self._tables.locks, row.id)

    async def add_unmatched(self, messages: Sequence[UnmatchedMessage]) -> None:
        """Keep messages that fit no saga; bounded, the oldest go."""
        unmatched = self._tables.unmatched
        for message in messages:
            self._put(unmatched, self._new_id(), message)
        for oldest in sorted(unmatched)[: max(0, len(unmatched) - _UNMATCHED_KEPT)] if messages else ():
            self._remove(unmatched, oldest)

    async def add_outgoing(self, messages: Sequence[Outgoing]) -> None:
        """Keep messages for whoever relays them."""
        for message in messages:
            self._put(self._tables.outgoing, self._new_id(), message)

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Keep who asked for what, and what became of it."""
        for entry in entries:
            self._put(self._tables.audit, self._new_id(), entry)

    def _load(self, saga_ids: Sequence[UUID]) -> Locked:
        self._locked.update(saga_ids)
        now = self._clock.now()
        if saga_ids:
            self._now = now
        return Locked(
            now, {one: at_hand(self._tables.sagas[one], self._tables.items.get(one) or ()) for one in saga_ids}
        )

    def _has_ended(self, saga_id: UUID) -> bool:
        saga = self._tables.sagas.get(saga_id)
        return saga is None or saga.status.terminal

    def _write(self, saga: SagaInstance) -> None:
        resting = saga.status.terminal or saga.status is SagaStatus.BLOCKED or saga.paused_at is not None
        if (saga.wake_at is None) != resting:
            raise ValueError(
                f"saga {saga.id} is {saga.status} with wake_at {saga.wake_at}: it must be None exactly when "
                "the saga is terminal, paused or blocked"
            )
        self._put(self._tables.sagas, saga.id, saga)
        if saga.wake_at is None:
            self._remove(self._tables.wakes, saga.id)
        else:
            self._put(self._tables.wakes, saga.id, saga.wake_at)

    def _write_record(self, saga_id: UUID, record: StepRecord, before: StepRecord | None) -> StepRecord:
        tables, place = self._tables, (saga_id, record.key)
        if record.command_id is not None:
            ref = CommandRef(saga_id, record.key, record.round, record.attempt)
            self._put(tables.commands, record.command_id, ref)
        if record.body is not None:
            self._put(tables.bodies, place, record.body)
        if record.reply is not None:
            self._put(tables.replies, place, record.reply)
        anew = before is None or before.command_id != record.command_id
        self._keep_unsent(saga_id, record, anew=anew)
        # Claims raise it between loading and saving.
        attempts = record.send_attempts if anew or before is None else max(record.send_attempts, before.send_attempts)
        return replace(record, body=None, reply=None, send_attempts=attempts)

    def _change_record(self, saga_id: UUID, record: StepRecord) -> None:
        saga = self._tables.sagas[saga_id]
        self._put(self._tables.sagas, saga_id, replace(saga, steps={**saga.steps, record.key: record}))
        self._keep_unsent(saga_id, record, anew=False)

    def _keep_unsent(self, saga_id: UUID, record: StepRecord, *, anew: bool) -> None:
        unsent, place = self._tables.unsent, (saga_id, record.key)
        if record.send_after is None:
            self._remove(unsent, place)
        elif anew or place not in unsent:
            self._put(unsent, place, "")

    def _unsent(self, command_ids: Sequence[UUID]) -> list[tuple[UUID, StepRecord]]:
        found: list[tuple[UUID, StepRecord]] = []
        for command_id in command_ids:
            ref = self._tables.commands.get(command_id)
            if ref is not None:
                record = self._tables.sagas[ref.saga_id].steps[ref.key]
                if record.command_id == command_id and record.send_after is not None:
                    found.append((ref.saga_id, record))
        return found

    def _claim(self, saga_id: UUID, record: StepRecord, until: datetime) -> SagaCommand:
        saga = self._tables.sagas[saga_id]
        claimed = replace(record, send_after=until, send_attempts=record.send_attempts + 1)
        self._change_record(saga_id, claimed)
        body = self._tables.bodies.get((saga_id, record.key))
        return SagaCommand(saga_id, saga.pin.name, replace(claimed, body=body), saga.trace, claimed.send_attempts)

    def _signals(self, signal_ids: Sequence[UUID]) -> list[KeptSignal]:
        signals = self._tables.signals
        return [signals[signal_id] for signal_id in signal_ids if signal_id in signals]

    def _kept(self, event_ids: Sequence[UUID] | None, now: datetime) -> list[KeptEvent]:
        events = self._tables.events
        ids = events if event_ids is None else [one for one in event_ids if one in events]
        kept = [events[one] for one in sorted(set(ids))]
        return [one for one in kept if one.consumed_by is None and one.arrived_at + one.event.keep_for > now]

    def _waits(self, saga_ids: Sequence[UUID] | None) -> dict[tuple[str, str], list[tuple[UUID, StepKey]]]:
        sagas = self._tables.sagas
        waits: dict[tuple[str, str], list[tuple[UUID, StepKey]]] = {}
        for saga_id in sagas if saga_ids is None else set(saga_ids) & sagas.keys():
            for record in sagas[saga_id].steps.values():
                if record.status is StepStatus.WAITING:
                    waits.setdefault((record.wire_name, record.awaited_key), []).append((saga_id, record.key))
        return waits

    def _put(self, table: dict[K, V], key: K, value: V) -> None:
        self._undo.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def _remove(self, table: dict[K, V], key: K) -> None:
        if key in table:
            self._undo.append((table, key, table.pop(key)))
