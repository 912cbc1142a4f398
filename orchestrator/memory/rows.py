"""Reading and writing rows so that all of it can be undone: what every part of a transaction stands on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from orchestrator.instance import SagaInstance, SagaStatus, StepRecord
from orchestrator.memory.tables import MemoryTables
from orchestrator.rising_ids import RisingIds
from orchestrator.roster import at_hand
from orchestrator.store import Clock
from orchestrator.store_records import CommandRef, Locked

K = TypeVar("K")
V = TypeVar("V")

_MISSING: Final = object()


class Rows:
    """Writes go to the tables at once, and are undone when the transaction rolls back."""

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

    def _keep_search(self, saga_id: UUID, search: Iterable[tuple[str, str | None]]) -> None:
        for field, value in search:
            if value is None:
                self._remove(self._tables.search, (saga_id, field))
            else:
                self._put(self._tables.search, (saga_id, field), value)

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

    def _put(self, table: dict[K, V], key: K, value: V) -> None:
        self._undo.append((table, key, table.get(key, _MISSING)))
        table[key] = value

    def _remove(self, table: dict[K, V], key: K) -> None:
        if key in table:
            self._undo.append((table, key, table.pop(key)))
