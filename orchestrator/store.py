"""The contract between the engine and a database: one transaction at a time, everything in batches.

A saga's rows are written only in a transaction that holds the lock of its own instance row. Whatever
concerns a saga that is not locked is inserted beside it: a signal, an event. Nothing is ordered by
instants; `seq`, `revision` and ids order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from messaging.transport import Outgoing
from orchestrator.backlog import Backlog, OldSagas, Outcomes, UnsentCommands
from orchestrator.granting import LockRow
from orchestrator.holds import Hold
from orchestrator.instance import Pin, SagaInstance, SagaStatus
from orchestrator.retention import EndedTree, EndedTrees, Place, Rest
from orchestrator.signals import Decision, LockChange
from orchestrator.store_records import (
    AuditEntry,
    CommandRef,
    DueWork,
    EventMatch,
    HeldLock,
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


class Clock(Protocol):
    """Where a store reads the time, when it is not the database's own."""

    def now(self) -> datetime:
        """The current instant, aware, UTC."""
        ...


class StoreTransaction(Protocol):
    """One transaction. Every method may be called with an empty sequence, which does nothing."""

    async def now(self) -> datetime:
        """The store's current instant; what `lock` returned once something is locked."""
        ...

    async def lock_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        """Find attempts by their ids, replaced ones included; lock and load their sagas as `lock` does."""
        ...

    async def lock(self, saga_ids: Sequence[UUID]) -> Locked:
        """Lock these sagas, in order of id, and load them. Unknown ids are left out."""
        ...

    async def lock_due(self, known: Sequence[Pin], *, limit: int, only_new: bool = False) -> Locked:
        """Lock and load sagas of known definitions whose `wake_at` has come, earliest first.

        What another transaction has locked is passed over. With `only_new`, sagas that have not written
        any step yet (`seq` = 0) are taken alone.
        """
        ...

    async def lock_signalled(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Lock and load sagas of known definitions that have pending signals.

        Paused ones only if one of these is an operator's action (`signal_codec.ACTIONS`).
        What another transaction has locked is passed over.
        """
        ...

    async def lock_overdue(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """Lock and load sagas of definitions other than these whose `wake_at` has passed by so much.

        What another transaction has locked is passed over.
        """
        ...

    async def lock_ordered_back(self, known: Sequence[Pin], *, by: timedelta, limit: int) -> Locked:
        """Lock and load completed children of definitions other than these, ordered back so long ago.

        What another transaction has locked is passed over.
        """
        ...

    async def lock_needing_version(self, known: Sequence[Pin], *, limit: int) -> Locked:
        """Lock and load sagas of known definitions that are blocked with `needs_version`; locked ones passed over."""
        ...

    async def lock_upgrading(self, targets: Sequence[Pin], *, limit: int) -> Locked:
        """Lock and load sagas for which an upgrade to one of these versions is pending, whatever theirs is.

        What another transaction has locked is passed over.
        """
        ...

    async def set_pins(self, pins: Mapping[UUID, Pin]) -> None:
        """Have locked sagas belong to another version of their definition."""
        ...

    async def holds(self) -> list[Hold]:
        """Return what is held now, the longest held first."""
        ...

    async def hold(self, saga: str, version: int | None, *, reason: str, by: str) -> Hold | None:
        """Hold a version of a definition, or (None) all of it; None, and nothing is written, if just that is held."""
        ...

    async def release(self, saga: str, version: int | None, *, reason: str, by: str) -> list[Hold]:
        """End the holds of a version, or (None) all holds of a name; return them. Their rows stay, with who and why.

        What they kept from beginning is due once `wake_new` has made it so.
        """
        ...

    async def released_since(self, saga: str, version: int, since: datetime) -> bool:
        """Whether a hold that concerned this version was ended since then."""
        ...

    async def wake_new(
        self, saga: str, version: int | None, *, after: UUID | None = None, limit: int = 1000
    ) -> UUID | None:
        """Make those due that have not begun, at most so many, by id; return the last one's if more may follow.

        Waits for those that another transaction has locked: it may be putting them off.
        """
        ...

    async def put_off(self, until: Mapping[UUID, datetime]) -> None:
        """Have locked sagas that go forward looked at then, and not before; nothing else of them changes."""
        ...

    async def announce(self, worker: Worker, *, dead_after: timedelta) -> list[Worker]:
        """Note that a process is alive, and what it knows; forget those not heard of for so long.

        Returns those that remain, this one among them.
        """
        ...

    async def workers(self, *, dead_after: timedelta) -> list[Worker]:
        """Return the processes that were heard of within this time."""
        ...

    async def unread_events(self, wire_names: Sequence[str], *, limit: int) -> list[UnreadEvent]:
        """Lock and return kept events of these types that nobody has read; what others hold is passed over."""
        ...

    async def drop_events(self, event_ids: Sequence[UUID]) -> None:
        """Delete unread events, once they are kept under their keys."""
        ...

    async def start(self, saga: SagaInstance, *, reuse_key_after_end: bool = False) -> tuple[UUID, bool]:
        """Write a new saga and its business key; return its id and True.

        If a saga has the key already, write nothing and return that saga's id and False (unless
        `reuse_key_after_end` and it has ended). Never aborts the transaction; of 50 concurrent starts
        with one key, one writes.
        """
        ...

    async def save(self, decisions: Sequence[Decision]) -> None:
        """Write what was decided: instances, added and changed records, replaced ids, notes as history.

        At most one decision a saga, all of them locked here. A changed record whose `body` or `reply`
        is None keeps the stored one. The stored revision becomes the loaded one plus one. `events` are not
        written here, see `add_outgoing`; nor are notes that are `unusable`, see `add_unmatched`. States that are kept
        stand under the new revision, in order.

        Raises:
            ConcurrentUpdate: a saga's stored revision is not the loaded one. The transaction must be rolled back.
        """
        ...

    def session(self, *, timeout: timedelta) -> AbstractAsyncContextManager[AsyncSession]:
        """A session for the author's code, whose work is part of this transaction.

        Commits and rollbacks in it stay inside. The block may take so long, and so may each statement of this
        transaction from here on, where the database can tell. If the block raises, the transaction must be rolled back.

        Raises:
            TimeoutError: the block took longer.
        """
        ...

    async def mark_sent(self, command_ids: Sequence[UUID]) -> None:
        """Note that these attempts were confirmed by the broker: nothing more to send, `sent_at` = now.

        Ids that were replaced or answered since are ignored; rows locked by others are passed over.
        Takes no saga's lock.
        """
        ...

    async def claim_unsent(self, *, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Take commands of live sagas whose `send_after` has come, which becomes now + grace.

        Earliest first; rows locked by others and commands of paused sagas are passed over. The caller
        publishes after the commit. Raises the stored `send_attempts` by one, and where sagas are read without a lock
        their revisions: what is decided on them meanwhile would take the commands for unsent.
        """
        ...

    async def put_off_sends(self, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Note that attempts could not be sent: when to try again, and why. Guarded like `mark_sent`."""
        ...

    async def set_traces(self, traces: Mapping[UUID, str]) -> None:
        """Write the traces of locked sagas that have none."""
        ...

    async def make_unanswered_due(self, *, timeout: timedelta) -> int:
        """Make every outstanding command of a live saga due again, with its id; return how many.

        Deadlines become at least now + timeout. For brokers that forget when the process ends.
        """
        ...

    async def add_signals(self, signals: Sequence[NewSignal]) -> None:
        """Keep signals for sagas, locked or not, in order."""
        ...

    async def pending_signals(self, saga_ids: Sequence[UUID]) -> list[StoredSignal]:
        """Signals not taken and without error of these sagas, in order of id."""
        ...

    async def take_signals(self, signal_ids: Sequence[UUID]) -> None:
        """Mark as taken."""
        ...

    async def fail_signals(self, errors: Mapping[UUID, str]) -> None:
        """Keep signals aside with what they made the definition raise."""
        ...

    async def revive_signals(self, saga_ids: Sequence[UUID]) -> None:
        """Clear the error of signals kept aside, so that they are pending again."""
        ...

    async def add_events(self, events: Sequence[ReceivedEvent]) -> list[UUID]:
        """Keep events; return the ids of those that are new by (message id, key)."""
        ...

    async def event_matches(
        self,
        *,
        event_ids: Sequence[UUID] | None = None,
        saga_ids: Sequence[UUID] | None = None,
        limit: int = 200,
    ) -> list[EventMatch]:
        """Join kept, unconsumed, unexpired events with waiting steps by (wire name, key), oldest event first.

        A wait whose record's `memo` names an event has refused it, and does not meet it again.

        Args:
            event_ids: only these events, if given.
            saga_ids: only these sagas' waits, if given.
            limit: at most so many.
        """
        ...

    async def starting_events(
        self, wire_names: Sequence[str], prefix: str, *, event_ids: Sequence[UUID] | None = None, limit: int = 200
    ) -> list[StartingEvent]:
        """Find kept, unconsumed, unexpired events of these types whose key begins so, oldest first.

        Args:
            wire_names: of the types.
            prefix: of the keys; letters, digits, `-` and `:` alone.
            event_ids: only these events, if given.
            limit: at most so many.
        """
        ...

    async def lock_events(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Lock events, after their sagas; return those still unconsumed."""
        ...

    async def consume_events(self, consumers: Mapping[UUID, UUID]) -> None:
        """Mark events (by id) as consumed by a saga (by id)."""
        ...

    async def change_locks(self, saga: SagaInstance, changes: Sequence[LockChange]) -> None:
        """Write what a saga asks for and lets go of, in order; after it was saved.

        What a saga holds whose first ancestor has not ended stays, whatever its own end.
        """
        ...

    async def contended_locks(self) -> list[LockRow]:
        """All rows of the resources that somebody asks for, in order of asking.

        From here to the end of the transaction no other one is given them: whoever is granted what, one decides.
        """
        ...

    async def settle_locks(self, granted: Sequence[UUID], denied: Sequence[UUID]) -> None:
        """Mark these rows as held, and remove those."""
        ...

    async def held_locks(self, *, before: datetime, limit: int = 100) -> list[HeldLock]:
        """Resources that were granted before this instant and are still held, the longest held first."""
        ...

    async def backlog(self) -> Backlog:
        """What waits, whichever process is to do it."""
        ...

    async def unsent_commands(self, *, before: datetime) -> list[UnsentCommands]:
        """Count commands of live sagas, by participant, that should have left before this instant and have not.

        That is: due since then and taken by nobody, or of a step that began before and was tried in vain.
        Those of paused sagas are not meant to leave.
        """
        ...

    async def sagas_begun(self, before: Mapping[Pin, datetime]) -> list[OldSagas]:
        """Count sagas that have not ended, of each of these versions, whatever the fingerprint, begun before then."""
        ...

    async def unmatched_since(self, since: datetime) -> int:
        """Count messages that fit no saga and came since then; of those that are still kept."""
        ...

    async def outcomes(self, *, since: datetime, at_least: int) -> list[Outcomes]:
        """Count what became of sagas since then, of versions of which so many were blocked or turned back."""
        ...

    async def add_unmatched(self, messages: Sequence[UnmatchedMessage]) -> None:
        """Keep messages that fit no saga; bounded, the oldest go."""
        ...

    async def add_outgoing(self, messages: Sequence[Outgoing]) -> None:
        """Put messages into `message_outbox`, for the relay."""
        ...

    async def add_audit(self, entries: Sequence[AuditEntry]) -> None:
        """Keep who asked for what, and what became of it."""
        ...

    async def claim_purge(self, *, every: timedelta) -> bool:
        """Say that this process purges from now on for so long; False if another one has said so.

        Nothing rests on it but how much is done at once: `lock_ended` gives each tree to one transaction alone.
        """
        ...

    async def lock_ended(
        self, status: SagaStatus, *, before: datetime, after: Place | None = None, limit: int
    ) -> EndedTrees:
        """Lock trees whose first saga has ended so before then, the longest ended first, with all their sagas.

        What another transaction has locked is passed over; so is, as long as it is so, a tree in which a saga has not
        ended or has signals pending.
        """
        ...

    async def purge(self, trees: Sequence[EndedTree]) -> None:
        """Delete locked trees, with all that hangs on their sagas but the audit. Their keys stay taken.

        An event that one of them consumed and that has not expired yet stays until it does, empty, so that a copy is
        known as one.
        """
        ...

    async def purge_rest(self, rest: Rest, *, before: datetime, limit: int) -> int:
        """Delete what is older, at most so many; return how many there were. What others hold is passed over."""
        ...


class SagaStore(Protocol):
    """A database that keeps sagas."""

    async def open(self) -> None:
        """Connect and check the schema.

        Raises:
            SchemaMismatch: it is not the one this code needs; the text says what to run.
            EngineAlreadyRunning: a SQLite file that another engine uses.
        """
        ...

    def transaction(self) -> AbstractAsyncContextManager[StoreTransaction]:
        """Begin a transaction; commits when the block ends, rolls back when it raises."""
        ...

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        """Find attempts as `lock_commands` does, with their sagas as they are at one instant; nothing is locked.

        Sagas that cannot be read whole like this are left out. None: it is no gain here, take a transaction.
        """
        ...

    async def write(self, decisions: Sequence[Decision], now: datetime) -> bool:
        """Write plain decisions, of at least one saga, that were made on what was read, in a transaction of their own.

        Returns False, and writes nothing, if one of the sagas was changed since it was read.
        """
        ...

    async def due(self) -> DueWork:
        """Look at what the scans may find.

        One look, outside of any transaction. What this process cannot take on counts as well.
        """
        ...

    def is_transient(self, error: BaseException) -> bool:
        """Whether the same work may succeed when it is done again as a whole.

        Lost connection, deadlock, lock timeout, serialization failure, the database starting up: told by
        SQLSTATE, not by class.
        """
        ...

    async def close(self) -> None:
        """Let go of connections and locks. Idempotent."""
        ...
