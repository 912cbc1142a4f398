"""Events received: kept, matched, consumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from orchestrator.instance import StepKey, StepStatus
from orchestrator.memory.rows import Rows
from orchestrator.memory.tables import KeptEvent
from orchestrator.store_records import EventMatch, ReceivedEvent, StartingEvent, UnreadEvent


class EventRows(Rows):
    """Kept events and the waits they meet."""

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
            for saga_id, key, memo in sorted(waits.get((one.event.wire_name, one.event.key), ()))
            if str(one.id) not in memo
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

    def _kept(self, event_ids: Sequence[UUID] | None, now: datetime) -> list[KeptEvent]:
        events = self._tables.events
        ids = events if event_ids is None else [one for one in event_ids if one in events]
        kept = [events[one] for one in sorted(set(ids))]
        return [one for one in kept if one.consumed_by is None and one.arrived_at + one.event.keep_for > now]

    def _waits(self, saga_ids: Sequence[UUID] | None) -> dict[tuple[str, str], list[tuple[UUID, StepKey, str]]]:
        sagas = self._tables.sagas
        waits: dict[tuple[str, str], list[tuple[UUID, StepKey, str]]] = {}
        for saga_id in sagas if saga_ids is None else set(saga_ids) & sagas.keys():
            for record in sagas[saga_id].steps.values():
                if record.status is StepStatus.WAITING:
                    waits.setdefault((record.wire_name, record.awaited_key), []).append(
                        (saga_id, record.key, record.memo)
                    )
        return waits
