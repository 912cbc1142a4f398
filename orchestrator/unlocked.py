"""Replies decided on sagas that were read and not locked: they are written only if nobody has changed them since.

That spares a transaction its three round trips, and nothing waits for a lock while hooks run. What needs more than its
saga's own rows written is left to a transaction, and so is everything if one of the sagas was changed meanwhile:
deciding it once more does no harm, since deciding has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from uuid import UUID

from orchestrator.batch import Batch
from orchestrator.incoming import Reply, Unmatched
from orchestrator.signals import ReplyReceived
from orchestrator.store_records import CommandRef


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
