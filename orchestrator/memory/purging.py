"""What has ended goes, a whole tree at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.event_starts import STARTED_NOTHING
from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.memory.rows import Rows
from orchestrator.retention import EndedTree, EndedTrees, Place, Rest
from orchestrator.signal_codec import UPGRADE


class PurgeRows(Rows):
    """Retention."""

    async def claim_purge(self, *, every: timedelta) -> bool:
        """Nobody else is there."""
        return True

    async def lock_ended(
        self, status: SagaStatus, *, before: datetime, after: Place | None = None, limit: int
    ) -> EndedTrees:
        """Find trees that have ended."""
        sagas = self._tables.sagas.values()
        ended = [
            (one.ended_at, one.id) for one in sagas if one.status is status and one.parent is None and one.ended_at
        ]
        since = None if after is None else (after.ended_at, after.id)
        found = sorted(one for one in ended if one[0] < before and (since is None or one > since))[:limit]
        told = {
            kept.signal.saga_id
            for kept in self._tables.signals.values()
            if kept.pending and not kept.signal.kind.startswith(UPGRADE)
        }
        families = {root: self._family(root) for _, root in found}
        trees = tuple(
            self._tree(status, ended_at, families[root])
            for ended_at, root in found
            if all(one.status.terminal and one.id not in told for one in families[root])
        )
        return EndedTrees(trees, len(found) - len(trees), Place(*found[-1]) if found and len(found) == limit else None)

    def _family(self, root: UUID) -> list[SagaInstance]:
        sagas = self._tables.sagas
        children = (one for _, one in sorted(sagas.items()) if one.parent is not None and one.parent.root == root)
        return [sagas[root], *children]

    def _tree(self, status: SagaStatus, ended_at: datetime, family: Sequence[SagaInstance]) -> EndedTree:
        first = family[0]
        key = None if first.business_key is None else (first.pin.name, first.business_key)
        return EndedTree(status, ended_at, {one.id: one.pin for one in family}, key)

    async def purge(self, trees: Sequence[EndedTree]) -> None:
        """Delete them with all that hangs on them."""
        tables, now = self._tables, await self.now()
        gone = {one for tree in trees for one in tree.sagas}
        for by_id in (tables.sagas, tables.items):
            self._remove_all(by_id, gone)
        for by_step in (tables.bodies, tables.replies, tables.unsent):
            self._remove_all(by_step, [place for place in by_step if place[0] in gone])
        self._remove_all(tables.states, [place for place in tables.states if place[0] in gone])
        self._remove_all(tables.commands, [one for one, ref in tables.commands.items() if ref.saga_id in gone])
        self._remove_all(tables.signals, [one for one, kept in tables.signals.items() if kept.signal.saga_id in gone])
        self._remove_all(tables.history, [one for one, (saga_id, _) in tables.history.items() if saga_id in gone])
        unmatched = [one for one, kept in tables.unmatched.items() if kept.saga_id in gone]
        for by_row in (tables.unmatched, tables.arrived):
            self._remove_all(by_row, unmatched)
        self._remove_all(tables.locks, [one for one, row in tables.locks.items() if row.saga_id in gone])
        for event_id, kept in list(tables.events.items()):
            if kept.consumed_by in gone:
                self._let_event_go(event_id, now)

    def _let_event_go(self, event_id: UUID, now: datetime) -> None:
        kept = self._tables.events[event_id]
        if kept.arrived_at + kept.event.keep_for <= now:
            self._remove(self._tables.events, event_id)
            self._remove(self._tables.event_ids, (kept.event.message_id, kept.event.key))
        else:
            spent = replace(kept.event, wire_name="", body="")
            self._put(self._tables.events, event_id, replace(kept, event=spent, consumed_by=None))

    async def purge_rest(self, rest: Rest, *, before: datetime, limit: int) -> int:
        """Delete what is older; of what has no date here nothing."""
        tables = self._tables
        if rest is Rest.EVENTS:
            expired = [
                one
                for one, kept in tables.events.items()
                if kept.consumed_by in (None, STARTED_NOTHING) and kept.arrived_at + kept.event.keep_for < before
            ][:limit]
            for event_id in expired:
                event = tables.events[event_id].event
                self._remove(tables.event_ids, (event.message_id, event.key))
            self._remove_all(tables.events, expired)
            return len(expired)
        if rest is Rest.SIGNALS:
            signals = tables.signals.items()
            orphans = [one for one, kept in signals if kept.pending and kept.signal.saga_id not in tables.sagas][:limit]
            self._remove_all(tables.signals, orphans)
            return len(orphans)
        return 0

    def _remove_all(self, table: dict[Any, Any], keys: Iterable[Any]) -> None:
        for key in keys:
            self._remove(table, key)
