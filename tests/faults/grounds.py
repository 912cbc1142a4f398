"""A shop to send bad input to, as processes over RabbitMQ and PostgreSQL, or in this one over SQLite and memory."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import aio_pika
from sqlalchemy.ext.asyncio import async_sessionmaker

from messaging import ServiceRunner
from messaging.dead_letters import KeepsDeadLetters
from messaging.envelope import Envelope, to_queue
from messaging.memory import MemoryTransport
from messaging.outbox import RelaySettings
from messaging.rabbitmq import RabbitTransport
from messaging.settings import MessagingSettings
from messaging.sql.dead_letters import SqlDeadLetters
from messaging.transport import Outgoing
from orchestrator.app import Orchestrator, running
from orchestrator.settings import OrchestratorSettings
from tests.faults.shop import OrderSaga, services
from tests.faults.system import QUEUES, System
from tests.integration.rabbitmq.raw_client import absurd_timestamp, deep_headers, publish_raw, short_property

Stop: TypeAlias = Callable[[], Awaitable[None]]

SOON = timedelta(seconds=10)
UNREADABLE_PROPERTIES = 1
"""How many of what `post_raw` posts nobody can read."""
READABLE_AFTER_ALL = 2
"""How many of it are only curious."""


@dataclass
class Letter:
    """A message as a test posts it."""

    body: bytes
    correlation_id: str = ""
    type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    reply_to: str = ""


class Ground(ABC):
    """Where a shop stands."""

    def __init__(self, system: System) -> None:
        self.system = system

    @abstractmethod
    async def start(self, role: str) -> Stop:
        """Start the orchestrator or the services; returns what stops them."""

    @abstractmethod
    async def post(self, queue: str, letters: Sequence[Letter]) -> None:
        """Put messages into a queue."""

    @abstractmethod
    async def post_raw(self, queue: str) -> None:
        """Put messages into a queue whose properties no decent client sends."""

    @abstractmethod
    def keeper(self) -> AbstractAsyncContextManager[KeepsDeadLetters]:
        """What keeps the dead letters."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop what still runs, and see it end well."""

    @abstractmethod
    async def nothing_left_in_queues(self) -> None:
        """With all stopped, no message remains."""


class Distributed(Ground):
    """Processes over RabbitMQ."""

    async def start(self, role: str) -> Stop:
        return (await self.system.start(role)).stop

    async def post(self, queue: str, letters: Sequence[Letter]) -> None:
        connection = await aio_pika.connect(self.system.broker_url)
        async with connection, connection.channel() as channel:
            for letter in letters:
                message = aio_pika.Message(
                    letter.body,
                    message_id=str(uuid.uuid4()),
                    type=letter.type,
                    correlation_id=letter.correlation_id,
                    reply_to=letter.reply_to or None,
                    headers=dict(letter.headers),
                )
                await channel.default_exchange.publish(message, self.system.prefix + queue)

    async def post_raw(self, queue: str) -> None:
        # The first is a content type that is no UTF-8.
        for properties in (short_property(15, b"\xff\xfe"), absurd_timestamp(), deep_headers(2000)):
            url, full_name = self.system.broker_url, self.system.prefix + queue
            await publish_raw(url, full_name, properties, b'{"order_id": "1"}')

    @asynccontextmanager
    async def keeper(self) -> AsyncGenerator[KeepsDeadLetters]:
        transport = RabbitTransport(self.system.broker_url, prefix=self.system.prefix)
        await transport.open()
        yield transport
        await transport.close()

    async def stop(self) -> None:
        assert all(child.alive for child in self.system.children if child.process.returncode != 0)
        await self.system.stop()

    async def nothing_left_in_queues(self) -> None:
        await self.system.nothing_left_in_queues()


class Embedded(Ground):
    """All in this process, over one transport in memory."""

    def __init__(self, system: System) -> None:
        super().__init__(system)
        # It is the reader's limit that is to be met, not the sender's.
        self._transport = MemoryTransport(max_body_bytes=1 << 25)
        self._parts: list[AsyncExitStack] = []

    async def start(self, role: str) -> Stop:
        stack = AsyncExitStack()
        await self._transport.open()
        if role == "orchestrator":
            await stack.enter_async_context(
                running(
                    Orchestrator([OrderSaga]),
                    settings=self._settings(),
                    messaging=MessagingSettings.model_validate({"broker_url": "memory://"}),
                    transport=self._transport,
                )
            )
        else:
            await self._start_services(stack)
        self._parts.append(stack)
        return stack.aclose

    def _settings(self) -> OrchestratorSettings:
        seconds = {"poll_seconds": 0.05, "sweep_seconds": 0.5, "send_grace_seconds": 2, "drain_seconds": 10}
        return OrchestratorSettings.model_validate({"database_url": self.system.sagas_url, **seconds})

    async def _start_services(self, stack: AsyncExitStack) -> None:
        relay = RelaySettings(poll=timedelta(milliseconds=100), lease=timedelta(seconds=2))
        for service in services(async_sessionmaker(self.system.shop, expire_on_commit=False)):
            runner = ServiceRunner(service, self._transport, relay=relay, stop_within=SOON)
            await runner.start()
            stack.push_async_callback(runner.stop)

    async def post(self, queue: str, letters: Sequence[Letter]) -> None:
        await self._publish(
            queue,
            *(
                Envelope(str(uuid.uuid4()), one.body, one.type, one.correlation_id, one.reply_to, headers=one.headers)
                for one in letters
            ),
        )

    async def post_raw(self, queue: str) -> None:
        body = b'{"order_id": "1"}'
        await self._publish(
            queue,
            Envelope("\udcff\udcfe", body),  # what Python makes of bytes that are no UTF-8
            Envelope(str(uuid.uuid4()), body, timestamp=datetime.max.replace(tzinfo=UTC)),
            Envelope(str(uuid.uuid4()), body, headers={"a": "[" * 10_000}),
        )

    async def _publish(self, queue: str, *envelopes: Envelope) -> None:
        messages = [Outgoing(envelope, to_queue(queue)) for envelope in envelopes]
        assert not any(await self._transport.publish(messages, timeout=SOON))

    @asynccontextmanager
    async def keeper(self) -> AsyncGenerator[KeepsDeadLetters]:
        yield SqlDeadLetters(async_sessionmaker(self.system.sagas))

    async def stop(self) -> None:
        for part in reversed(self._parts):
            await part.aclose()

    async def nothing_left_in_queues(self) -> None:
        for queue in QUEUES:
            subscription = await self._transport.subscribe(queue, prefetch_messages=1)
            assert await subscription.backlog() == 0, queue
        async with self.keeper() as keeper:
            assert not any([await keeper.dead_letter_count(queue) for queue in QUEUES])
