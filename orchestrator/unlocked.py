"""Replies decided on sagas that were read and not locked: they are written only if nobody has changed them since.

That spares a transaction its three round trips, and nothing waits for a lock while hooks run. What needs more than its
saga's own rows written is left to a transaction, and so is everything if one of the sagas was changed meanwhile:
deciding it once more does no harm, since deciding has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from uuid import UUID

from orchestrator.batch import Batch
from orchestrator.incoming import Reply
from orchestrator.signals import ReplyReceived
from orchestrator.store_records import CommandRef


def received(reply: Reply, ref: CommandRef) -> ReplyReceived:
    """What a reply tells the saga whose command it answers."""
    return ReplyReceived(
        ref.key, ref.round, ref.attempt, reply.outcome, reply.body, reply.error_code, reply.moves_deadline_by
    )


def tell_unlocked(batch: Batch, replies: Sequence[Reply], refs: Mapping[UUID, CommandRef]) -> list[Reply]:
    """Decide replies, in order; return those that need a transaction, and leave their sagas out of the batch."""
    needing: set[UUID] = set()
    for reply in replies:
        ref = refs.get(reply.command_id)
        if ref is not None and not _told(batch, ref.saga_id, received(reply, ref)):
            needing.add(ref.saga_id)
    batch.leave(needing)
    return [reply for reply in replies if (ref := refs.get(reply.command_id)) is None or ref.saga_id in needing]


def _told(batch: Batch, saga_id: UUID, incoming: ReplyReceived) -> bool:
    """Tell it, and say whether that can be written as it is."""
    told = batch.tell(saga_id, incoming)
    decision = told.decision
    if decision is None or told.error or decision.parked or any(note.unusable for note in decision.notes):
        return False
    return batch.plain(saga_id)
