"""Resources that steps hold or wait for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from orchestrator.granting import LockRow
from orchestrator.instance import SagaInstance
from orchestrator.memory.rows import Rows
from orchestrator.signals import LockChange, LocksAsked, LocksLetGo
from orchestrator.store_records import HeldLock


class LockRows(Rows):
    """Who holds what, and who asked."""

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
        self._free(row for row in self._locks if self._is_nobodys(row))
        return [row for row in self._locks if row.resource in asked]

    async def settle_locks(self, granted: Sequence[UUID], denied: Sequence[UUID]) -> None:
        """Mark these rows as held, and remove those."""
        locks = self._tables.locks
        now = await self.now()
        for lock_id in granted:
            self._put(locks, lock_id, replace(locks[lock_id], held=True))
            self._put(self._tables.held_since, lock_id, now)
        self._free(locks[lock_id] for lock_id in denied)

    async def held_locks(self, *, before: datetime, limit: int = 100) -> list[HeldLock]:
        """Resources that were granted before this instant and are still held, the longest held first."""
        since, rows = self._tables.held_since, self._locks
        found = [row for row in rows if row.id in since and since[row.id] < before and not self._is_nobodys(row)]
        found.sort(key=lambda row: since[row.id])
        return [
            HeldLock(row.id, row.resource, row.saga_id, row.step, since[row.id], len(_waiters(row, rows)))
            for row in found[:limit]
        ]

    @property
    def _locks(self) -> list[LockRow]:
        return [row for _, row in sorted(self._tables.locks.items())]

    def _free(self, rows: Iterable[LockRow]) -> None:
        for row in rows:
            self._remove(self._tables.locks, row.id)
            if row.held:
                self._remove(self._tables.held_since, row.id)

    def _is_nobodys(self, row: LockRow) -> bool:
        return self._has_ended(row.root) and self._has_ended(row.saga_id)


def _waiters(held: LockRow, rows: Iterable[LockRow]) -> set[UUID]:
    asked = (row for row in rows if not row.held and row.resource == held.resource and row.root != held.root)
    return {row.saga_id for row in asked}
