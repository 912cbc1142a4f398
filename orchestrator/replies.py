"""Replies, decided where it can be on sagas that are not locked: written only if nobody has changed them since.

That spares a transaction its three round trips, and nothing waits for a lock while hooks run. What needs more than its
saga's own rows written is left to a transaction, and so is everything if one of the sagas was changed meanwhile:
deciding it once more does no harm, since deciding has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from uuid import UUID

from messaging import failpoints
from orchestrator.batch import Batch
from orchestrator.incoming import Reply, Unmatched, unmatched_message
from orchestrator.signals import ReplyReceived
from orchestrator.store import StoreTransaction
from orchestrator.store_records import CommandRef, UnmatchedMessage
from orchestrator.transacting import Transacting


class DecidesReplies(Transacting):
    """The engine's part that is about replies."""

    async def replies(self, items: Sequence[Reply | Unmatched]) -> None:
        """Decide replies, in order; those that fit nothing are kept whole with why."""
        left = await self.unlocked(items)
        if left:
            await self.locked(left)

    async def unlocked(self, items: Sequence[Reply | Unmatched]) -> Sequence[Reply | Unmatched]:
        """Decide, without a transaction around it, replies that need none; return what is left for `locked`."""
        ids = [item.command_id for item in items if isinstance(item, Reply)]
        left = await self._decided(items, ids)
        if left is None and self._at_hand.forget(ids):  # somebody has changed one of them: see what it is now
            left = await self._decided(items, ids)
        return items if left is None else left

    async def _decided(
        self, items: Sequence[Reply | Unmatched], ids: Sequence[UUID]
    ) -> Sequence[Reply | Unmatched] | None:
        """What is left once the rest is written; None: one of the sagas was changed since, and nothing was written."""
        read = await self._at_hand.read_commands(ids) if ids else None
        if read is None:
            return items
        batch = self._batch(read[1])
        left = tell_unlocked(batch, items, read[0])
        decisions, commands = batch.sending()
        failpoints.reached("engine.decided")
        if decisions and not await self._store.write(decisions, batch.now):
            return None
        await self._committed(batch, commands)
        return left

    async def locked(self, items: Sequence[Reply | Unmatched]) -> None:
        """Decide replies in one transaction, their sagas locked; those that fit nothing are kept whole with why."""
        replies = [item for item in items if isinstance(item, Reply)]
        unmatched = [unmatched_message(item, item.reason) for item in items if isinstance(item, Unmatched)]
        put_aside = 0

        async def work(tx: StoreTransaction) -> Batch:
            nonlocal put_aside
            refs, locked = await tx.lock_commands([item.command_id for item in replies])
            batch = self._batch(locked)
            more = [self._reply(batch, item, refs.get(item.command_id)) for item in replies]
            aside = [*unmatched, *(message for message in more if message)]
            put_aside = len(aside)
            await tx.add_unmatched(aside)
            return batch

        await self._run(work)
        self._tell_unmatched(put_aside)

    def _reply(self, batch: Batch, item: Reply, ref: CommandRef | None) -> UnmatchedMessage | None:
        if ref is None:
            return unmatched_message(item, f"correlation id {item.command_id} is of nothing we sent")
        incoming = received(item, ref)
        told = batch.tell(ref.saga_id, incoming)
        if told.decision is None or told.error or told.decision.parked:
            batch.park(ref.saga_id, incoming, error=told.error)
            return None
        unusable = next((note for note in told.decision.notes if note.unusable), None)
        return unmatched_message(item, unusable.text, ref.saga_id) if unusable else None


def received(reply: Reply, ref: CommandRef) -> ReplyReceived:
    """What a reply tells the saga whose command it answers."""
    return ReplyReceived(
        ref.key, ref.round, ref.attempt, reply.outcome, reply.body, reply.error_code, reply.moves_deadline_by
    )


def tell_unlocked(
    batch: Batch, items: Sequence[Reply | Unmatched], refs: Mapping[UUID, CommandRef]
) -> list[Reply | Unmatched]:
    """Decide replies, in order; return what needs a transaction, all of a saga's or none, and leave that undecided."""
    needing: set[UUID] = set()
    for item in items:
        ref = refs.get(item.command_id) if isinstance(item, Reply) else None
        if isinstance(item, Reply) and ref is not None and not _told(batch, ref.saga_id, received(item, ref)):
            needing.add(ref.saga_id)
    batch.leave(needing)
    return [item for item in items if not _is_decided(item, refs, needing)]


def _is_decided(item: Reply | Unmatched, refs: Mapping[UUID, CommandRef], needing: Set[UUID]) -> bool:
    ref = refs.get(item.command_id) if isinstance(item, Reply) else None
    return ref is not None and ref.saga_id not in needing


def _told(batch: Batch, saga_id: UUID, incoming: ReplyReceived) -> bool:
    """Tell it, and say whether that can be written as it is."""
    told = batch.tell(saga_id, incoming)
    decision = told.decision
    if decision is None or told.error or decision.parked or any(note.unusable for note in decision.notes):
        return False
    return batch.plain(saga_id)
