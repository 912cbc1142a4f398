"""Orchestrators at one store without their loops: a test makes each transaction itself, and gives the answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import OUTCOME, SUCCESS, Envelope
from messaging.memory import MemoryTransport
from messaging.transport import Delivery, QueueSpec, Transport
from orchestrator import Saga, Step
from orchestrator.engine import Engine
from orchestrator.incoming import Reply as ReplyItem
from orchestrator.incoming import read_reply
from orchestrator.instance import Direction, SagaInstance
from orchestrator.registry import SagaRegistry
from orchestrator.sender import Sender
from orchestrator.start import new_instance
from tests.conformance.stores import NOON, load


class Replica:
    """One orchestrator process, so to say."""

    def __init__(self, store: Any, *sagas: type[Saga[Any]], transport: Transport | None = None) -> None:
        self.store, self.transport = store, transport or MemoryTransport()
        self.sender = Sender(self.transport, "replies", timeout=timedelta(1))
        self.registry = SagaRegistry(sagas)
        self.engine = Engine(self.registry, store, self.sender)

    async def declare(self, *queues: str) -> None:
        """Have queues for participants."""
        await self.transport.declare([QueueSpec(queue) for queue in queues])

    async def start(self, saga: type[Saga[Any]], state: BaseModel) -> UUID:
        """Start a saga and let it send what it sends first."""
        instance = new_instance(saga, state, None, "", NOON)
        async with self.store.transaction() as tx:
            await tx.start(instance)
        await self.settle()
        return instance.id

    async def settle(self) -> None:
        """Do what is due, and tell what there is to tell, until there is nothing."""
        while await self.engine.wake(10, deadlines=True) or await self.engine.signals(10):
            pass

    async def command(self, saga_id: UUID, step: type[Step[Any, Any]], *, undo: bool = False) -> UUID:
        """The id of the command that a step, or its undo, has out."""
        direction = Direction.COMPENSATION if undo else Direction.ACTION
        rows = (await self.saga(saga_id)).steps.values()
        [command] = [row.command_id for row in rows if (row.key.step, row.key.direction) == (step.name, direction)]
        assert command is not None
        return command

    async def reply(self, *commands: UUID, outcome: str = SUCCESS) -> None:
        """Take participants' replies in one transaction."""
        items: list[ReplyItem] = []
        for command in commands:
            envelope = Envelope("", b"{}", correlation_id=str(command), headers={OUTCOME: outcome})
            item = read_reply(Delivery(envelope, "replies", tag=1, epoch=1), DEFAULT_LIMITS)
            assert isinstance(item, ReplyItem)
            items.append(item)
        await self.engine.replies(items)

    async def answer(
        self, saga_id: UUID, step: type[Step[Any, Any]], outcome: str = SUCCESS, *, undo: bool = False
    ) -> None:
        """Take the reply to what a step, or its undo, has out, and do what follows."""
        await self.reply(await self.command(saga_id, step, undo=undo), outcome=outcome)
        await self.settle()

    async def saga(self, saga_id: UUID) -> SagaInstance:
        """A saga as committed."""
        return await load(self.store, saga_id)
