"""Events: kept in one transaction, and handed in a later one to the sagas that they start or that wait for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from messaging import failpoints
from orchestrator.batch import Batch
from orchestrator.event_starts import start_by_events
from orchestrator.incoming import Events, Start, UnknownEvent, Unmatched, unmatched_message
from orchestrator.instance import StepKey
from orchestrator.late_starts import take_starts
from orchestrator.signal_codec import EVENT, signal_from_row
from orchestrator.signals import EventMatched
from orchestrator.start_messages import start_types
from orchestrator.store import StoreTransaction
from orchestrator.store_records import EventMatch
from orchestrator.transacting import Transacting


class KeepsEvents(Transacting):
    """The engine's part that is about events."""

    async def keep_events(self, items: Sequence[Events | Start | Unmatched]) -> list[UUID]:
        """Keep events, unmatched ones aside, and start what start messages start; return the new events' ids.

        They are to be matched next.
        """
        items = [self._or_elsewhere(item) for item in items]
        rows = [row for item in items if isinstance(item, Events) for row in item.rows]
        async with self._store.transaction() as tx:
            unread = await self._for_others(tx, items)
            aside = [item for item in items if isinstance(item, Unmatched) and item not in unread]
            starts = [item for item in items if isinstance(item, Start)]
            refused = await take_starts(tx, self._registry, starts)
            unmatched = [*(unmatched_message(item, item.reason) for item in aside), *refused]
            await tx.add_unmatched(unmatched)
            new = await tx.add_events([*rows, *(item.unread for item in unread)])
        failpoints.reached("engine.events_kept")
        self._tell_unmatched(len(unmatched))
        return new

    def _or_elsewhere(self, item: Events | Start | Unmatched) -> Events | Start | Unmatched:
        if not isinstance(item, Start) or self._registry.version_or_latest(item.saga_name, item.version):
            return item
        return item.elsewhere

    async def _for_others(self, tx: StoreTransaction, items: Sequence[object]) -> list[UnknownEvent]:
        """Those that some other process, of a later release say, can read."""
        unknown = [item for item in items if isinstance(item, UnknownEvent)]
        if not unknown:
            return []
        workers = await tx.workers(dead_after=self.settings.needs_version_after)
        read_elsewhere = {name for worker in workers for name in (*worker.events, *start_types(worker.pins))}
        return [item for item in unknown if item.unread.wire_name in read_elsewhere]

    async def start_by_events(self, event_ids: Sequence[UUID] | None = None) -> int:
        """Start the sagas that kept events start; return how many events there were."""
        if not self._registry.starting:
            return 0
        async with self._store.transaction() as tx:
            taken = await start_by_events(tx, self._registry, event_ids, limit=self.settings.batch)
        self._tell_unmatched(taken.refused)
        return taken.events

    async def match_events(self, event_ids: Sequence[UUID] | None = None) -> int:
        """Hand kept events to the sagas that wait for them; return how many found one."""
        found = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal found
            matches = await tx.event_matches(event_ids=event_ids, limit=self.settings.batch)
            found = len(matches)
            batch = self._batch(await tx.lock(list({match.saga_id for match in matches})))
            await self._take_events(tx, batch, matches)
            return batch

        await self._run(work)
        return found

    async def _take_events(self, tx: StoreTransaction, batch: Batch, matches: Sequence[EventMatch]) -> None:
        """Tell each waiting saga its event, once if it is kept for it. An event that any saga takes is consumed."""
        parked = await _parked_waits(tx, batch, matches)
        unconsumed = await tx.lock_events(list({match.event_id for match in matches}))
        consumed: dict[UUID, UUID] = {}
        for match in matches:
            if match.event_id in unconsumed and (match.saga_id, match.key) not in parked:
                incoming = EventMatched(match.key, match.event_id, match.body, match.arrived_at)
                told = batch.tell(match.saga_id, incoming)
                aside = told.decision is None or told.decision.parked  # its version is not known here, or it is paused
                if aside:
                    parked.add((match.saga_id, match.key))
                if aside or told.error:
                    batch.park(match.saga_id, incoming, error=told.error)
                if aside or told.error or (told.decision and told.decision.accepted):
                    consumed[match.event_id] = match.saga_id
        await tx.consume_events(consumed)


async def _parked_waits(tx: StoreTransaction, batch: Batch, matches: Iterable[EventMatch]) -> set[tuple[UUID, StepKey]]:
    """Waits of sagas that are paused, or not known here, for which an event is parked already."""
    resting = [saga_id for saga_id in {match.saga_id for match in matches} if not batch.decides(saga_id)]
    kept = [(signal.saga_id, signal) for signal in await tx.pending_signals(resting) if signal.kind == EVENT]
    told = [(saga_id, signal_from_row(signal.kind, signal.body)) for saga_id, signal in kept]
    return {(saga_id, incoming.key) for saga_id, incoming in told if isinstance(incoming, EventMatched)}
