"""Statements that are the same on every database: signals, events, and what is kept beside the sagas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, Text, and_, bindparam, case, cast, delete, insert, not_, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from orchestrator.instance import SagaStatus, StepStatus
from orchestrator.rising_ids import new_id
from orchestrator.sql.rows import key_of
from orchestrator.sql.tables import (
    in_schema,
    saga_audit,
    saga_event,
    saga_instance,
    saga_signal,
    saga_step,
    saga_unmatched,
)
from orchestrator.store_records import (
    AuditEntry,
    EventMatch,
    NewSignal,
    ReceivedEvent,
    StartingEvent,
    StoredSignal,
    UnmatchedMessage,
)

_TERMINAL: Final = [status.value for status in SagaStatus if status.terminal]


class Cold:
    """Statements over the tables of one schema. Sequences and mappings are never empty."""

    def __init__(self, schema: str | None = None, *, unmatched_kept: int = 10_000) -> None:
        self._unmatched_kept = unmatched_kept
        self._signal, self._event = in_schema(saga_signal, schema), in_schema(saga_event, schema)
        self._step, self._instance = in_schema(saga_step, schema), in_schema(saga_instance, schema)
        self._unmatched, self._audit = in_schema(saga_unmatched, schema), in_schema(saga_audit, schema)

    def set_traces(self, connection: Connection, traces: Mapping[UUID, str]) -> None:
        """One statement, run for each."""
        instance = self._instance
        statement = update(instance).where(instance.c.id == bindparam("of_id")).values(trace=bindparam("as_trace"))
        connection.execute(statement, [{"of_id": one, "as_trace": trace} for one, trace in traces.items()])

    def add_signals(self, connection: Connection, signals: Sequence[NewSignal], now: datetime) -> None:
        """Ids are made here, so that they rise in the order given."""
        rows = [
            {
                "id": new_id(),
                "saga_id": new.saga_id,
                "kind": new.kind,
                "body": new.body,
                "error": new.error,
                "arrived_at": now,
            }
            for new in signals
        ]
        connection.execute(insert(self._signal), rows)

    def pending_signals(self, connection: Connection, saga_ids: Sequence[UUID]) -> list[StoredSignal]:
        """Along the index of pending ones."""
        signal = self._signal
        statement = (
            select(signal.c.id, signal.c.saga_id, signal.c.kind, signal.c.body)
            .where(signal.c.saga_id.in_(saga_ids), signal.c.taken_at.is_(None), signal.c.error == "")
            .order_by(signal.c.id)
        )
        return [StoredSignal(*row) for row in connection.execute(statement)]

    def take_signals(self, connection: Connection, signal_ids: Sequence[UUID], now: datetime) -> None:
        """One statement."""
        signal = self._signal
        connection.execute(update(signal).where(signal.c.id.in_(signal_ids)).values(taken_at=now))

    def fail_signals(self, connection: Connection, errors: Mapping[UUID, str]) -> None:
        """One statement, run for each."""
        signal = self._signal
        statement = update(signal).where(signal.c.id == bindparam("of_id")).values(error=bindparam("with_error"))
        connection.execute(statement, [{"of_id": one, "with_error": error} for one, error in errors.items()])

    def revive_signals(self, connection: Connection, saga_ids: Sequence[UUID]) -> None:
        """One statement."""
        signal = self._signal
        aside = and_(signal.c.saga_id.in_(saga_ids), signal.c.taken_at.is_(None), signal.c.error != "")
        connection.execute(update(signal).where(aside).values(error=""))

    def add_events(self, connection: Connection, events: Sequence[ReceivedEvent], now: datetime) -> list[UUID]:
        """In order of what is unique about them, so that two transactions never wait for each other in a circle."""
        rows = [
            {
                "id": new_id(),
                "message_id": event.message_id,
                "wire_name": event.wire_name,
                "key": event.key,
                "body": event.body,
                "arrived_at": now,
                "expires_at": now + event.keep_for,
            }
            for event in events
        ]
        rows.sort(key=lambda row: (row["message_id"], row["key"]))
        into = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(self._event)
        new = connection.execute(into.on_conflict_do_nothing().returning(self._event.c.id), rows)
        return sorted(new.scalars())

    def event_matches(
        self,
        connection: Connection,
        now: datetime,
        event_ids: Sequence[UUID] | None,
        saga_ids: Sequence[UUID] | None,
        limit: int,
    ) -> list[EventMatch]:
        """Join along the two partial indexes; a wait that refused an event has its id in the memo."""
        event, step = self._event, self._step
        waits = and_(step.c.wire_name == event.c.wire_name, step.c.waiting_key == event.c.key)
        refused = step.c.memo.contains(cast(event.c.id, Text))
        statement = (
            select(
                *(event.c.id, step.c.saga_id, step.c.step, step.c.direction, step.c.branch),
                *(event.c.body, event.c.arrived_at),
            )
            .join_from(event, step, waits)
            .where(event.c.consumed_at.is_(None), event.c.expires_at > now, or_(step.c.memo == "", not_(refused)))
            .order_by(event.c.id, step.c.saga_id)
            .limit(limit)
        )
        if event_ids is not None:
            statement = statement.where(event.c.id.in_(event_ids))
        if saga_ids is not None:
            statement = statement.where(step.c.saga_id.in_(saga_ids))
        return [
            EventMatch(row[0], row[1], key_of(row[2], row[3], row[4]), row[5], row[6])
            for row in connection.execute(statement)
        ]

    def starting_events(
        self,
        connection: Connection,
        now: datetime,
        wire_names: Sequence[str],
        prefix: str,
        event_ids: Sequence[UUID] | None,
        limit: int,
    ) -> list[StartingEvent]:
        """Along the partial index of kept events."""
        event = self._event
        statement = (
            select(event.c.id, event.c.message_id, event.c.wire_name, event.c.key, event.c.body)
            .where(event.c.wire_name.in_(wire_names), event.c.key.startswith(prefix))
            .where(event.c.consumed_at.is_(None), event.c.expires_at > now)
            .order_by(event.c.id)
            .limit(limit)
        )
        if event_ids is not None:
            statement = statement.where(event.c.id.in_(event_ids))
        return [StartingEvent(*row) for row in connection.execute(statement)]

    def lock_events(self, connection: Connection, event_ids: Sequence[UUID]) -> set[UUID]:
        """In order of id."""
        event = self._event
        statement = (
            select(event.c.id)
            .where(event.c.id.in_(event_ids), event.c.consumed_at.is_(None))
            .order_by(event.c.id)
            .with_for_update(key_share=True)
        )
        return set(connection.execute(statement).scalars())

    def consume_events(self, connection: Connection, consumers: Mapping[UUID, UUID], now: datetime) -> None:
        """One statement, run for each."""
        event = self._event
        statement = (
            update(event)
            .where(event.c.id == bindparam("of_id"), event.c.consumed_at.is_(None))
            .values(consumed_at=now, consumed_by=bindparam("by_saga"))
        )
        connection.execute(statement, [{"of_id": one, "by_saga": saga} for one, saga in consumers.items()])

    def add_unmatched(self, connection: Connection, messages: Sequence[UnmatchedMessage], now: datetime) -> None:
        """Insert, then let the oldest go; those another transaction removes are passed over."""
        unmatched = self._unmatched
        rows = [
            {
                "id": new_id(),
                "arrived_at": now,
                "message_id": message.message_id,
                "reason": message.reason,
                "saga_id": message.saga_id,
                "properties": message.properties,
                "body": message.body,
            }
            for message in messages
        ]
        connection.execute(insert(unmatched), rows)
        newest = select(unmatched.c.id).order_by(unmatched.c.id.desc())
        last_to_go = newest.offset(self._unmatched_kept).limit(1).scalar_subquery()
        going = select(unmatched.c.id).where(unmatched.c.id <= last_to_go).with_for_update(skip_locked=True)
        connection.execute(delete(unmatched).where(unmatched.c.id.in_(going)))

    def add_audit(self, connection: Connection, entries: Sequence[AuditEntry], now: datetime) -> None:
        """One statement."""
        rows: list[dict[str, Any]] = [
            {
                "id": new_id(),
                "saga_id": entry.saga_id,
                "at": now,
                "action": entry.action,
                "by": entry.by,
                "reason": entry.reason,
                "before": entry.before,
                "after": entry.after,
                "refused": entry.refused,
                "signal_id": entry.signal_id,
            }
            for entry in entries
        ]
        connection.execute(insert(self._audit), rows)

    def make_unanswered_due(self, connection: Connection, now: datetime, timeout: timedelta) -> int:
        """One statement over all live sagas; only an engine that starts asks for it."""
        step, instance = self._step, self._instance
        live = select(instance.c.id).where(instance.c.status.not_in(_TERMINAL))
        earliest = now + timeout
        too_soon = or_(step.c.deadline.is_(None), step.c.deadline < earliest)
        statement = (
            update(step)
            .where(step.c.status == StepStatus.OUTSTANDING.value, step.c.saga_id.in_(live))
            .values(
                send_after=now,
                deadline=case(
                    (too_soon, bindparam("earliest", earliest, type_=step.c.deadline.type)), else_=step.c.deadline
                ),
                updated_at=now,
            )
        )
        return connection.execute(statement).rowcount
