"""What others leave in the database for sagas: operators' requests, redeemed tokens, resources that are denied."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from messaging.inbox import answer_of
from messaging.messages import Failure, Reply
from orchestrator.granting import LOCK_DEADLOCK
from orchestrator.registry import SagaRegistry
from orchestrator.reply_tokens import ReplyTokens, completed
from orchestrator.signal_codec import ACTIONS, signal_to_row
from orchestrator.signals import Asked, Incoming, LocksDenied
from orchestrator.store_records import NewSignal
from orchestrator.testing.exploring.moves import without
from orchestrator.testing.exploring.shell import Shell, finished
from orchestrator.testing.exploring.world import Sent, World

_TOKENS = ReplyTokens("00")


def asked(world: World, saga_id: UUID, word: str) -> World:
    """An operator has asked for something."""
    return _left(world, saga_id, ACTIONS[word](reason="explored", by="explorer"))


def redeemed(world: World, sent: Sent, answer: Reply | Failure) -> World:
    """Somebody has redeemed the reply token of an attempt."""
    command_id = _TOKENS.command_of(_TOKENS.token_of(UUID(sent.message_id)))
    attempt = world.tables.commands[command_id]
    after = _left(world, attempt.saga_id, completed(attempt, answer_of(answer), "explored", "explorer"))
    return replace(
        after,
        tokens=without(world.tokens, sent),
        late_tokens=without(world.late_tokens, sent),
        redeemed=world.redeemed | {sent},
    )


def denied(world: World, saga_id: UUID, step: str) -> World:
    """The engine has denied what would be waited for in a circle."""
    asked_for = [row.id for row in world.tables.locks.values() if (row.saga_id, row.step) == (saga_id, step)]
    return _left(world, saga_id, LocksDenied(step, LOCK_DEADLOCK, "explored"), denied=asked_for)


def _left(world: World, saga_id: UUID, incoming: Incoming | Asked, *, denied: list[UUID] | None = None) -> World:
    row = signal_to_row(incoming)
    assert row is not None
    shell = Shell(SagaRegistry([]), world)

    async def leave() -> None:
        async with shell.store.transaction() as tx:
            if denied:
                await tx.settle_locks([], denied)
            await tx.add_signals([NewSignal(saga_id, *row)])

    finished(leave())
    return replace(world, tables=shell.store.tables, ids=shell.store.ids.given_out)
