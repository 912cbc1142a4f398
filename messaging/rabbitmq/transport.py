"""RabbitMQ as the bus sees it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from messaging.errors import NotConfirmed, PublishError, TransportError
from messaging.queue_state import QueueState
from messaging.rabbitmq.broker import Broker
from messaging.rabbitmq.connection import CLOSE_SECONDS, Link
from messaging.rabbitmq.dead_letters import RabbitLook, looking
from messaging.rabbitmq.definitions import Layout
from messaging.rabbitmq.publisher import Publisher
from messaging.rabbitmq.subscription import RabbitSubscription
from messaging.rabbitmq.tap import unusable
from messaging.rabbitmq.topology import Topology
from messaging.transport import Outgoing, Promises, QueueSpec, QueueType, dead_letter_queue

log = logging.getLogger(__name__)


class RabbitTransport:
    """Queues of a RabbitMQ broker, 3.10 or newer.

    Publishing and consuming have a connection each, so that a broker which blocks publishers still
    delivers. Nothing here gives up on a broker that is away, except `open` and what has a timeout.

    Args:
        url: `amqp://user:password@host:port/vhost`, or `amqps` with TLS.
        prefix: stands before the names of all queues and exchanges, so that two systems can share a broker.
        app_id: the sender's name in messages and connections.
        queue_type: `quorum`, or `classic` where there is one node and speed is all.
        passive: declare nothing, and expect everything to be there; see `TopologyMissing`.
        fast: take the hot path past aiormq where the installed version allows it; the plain path keeps
            the same promises at a fifth of the speed.
        max_body_bytes: a larger body is refused before it is sent.
        patience: how long `open`, `declare` and `subscribe` wait for the broker.
        heartbeat: a connection on which nothing comes is given up after about three of them.
        connect_timeout: how long one attempt to connect may take.
        ssl_context: for `amqps`; by default one from the URL's parameters.
        server_name: what the broker's certificate is for, where that is not the URL's host.
        transient_exchanges: exchanges shared with another framework: named without the prefix, and not durable.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "",
        app_id: str = "",
        queue_type: QueueType = "quorum",
        passive: bool = False,
        fast: bool = True,
        max_body_bytes: int = 1 << 20,
        patience: timedelta = timedelta(seconds=30),
        heartbeat: timedelta = timedelta(seconds=10),
        connect_timeout: timedelta = timedelta(seconds=10),
        ssl_context: ssl.SSLContext | None = None,
        server_name: str = "",
        transient_exchanges: Iterable[str] = (),
    ) -> None:
        self._broker = Broker(url, app_id, heartbeat, connect_timeout, ssl_context, server_name)
        self._layout = Layout(prefix, queue_type, standing_delays=passive, transient=frozenset(transient_exchanges))
        self._passive = passive
        self._fast = fast
        self._max_body_bytes = max_body_bytes
        self._patience = patience
        self._subscriptions: list[RabbitSubscription] = []
        self._links: list[Link] = []
        self._parts: _Parts | None = None
        self._closed = False

    @property
    def promises(self) -> Promises:
        """All of them."""
        return Promises(
            survives_restart=True,
            keeps_order=True,
            broadcasts=True,
            delays=True,
            detects_unroutable=True,
            dead_letters=True,
            parts=True,
        )

    @property
    def fast(self) -> bool:
        """Whether the hot path is in use; known once the transport is open."""
        return self._fast

    def full_name(self, queue: str) -> str:
        """The queue's name with the prefix."""
        return self._layout.full(queue)

    async def open(self) -> None:
        """Connect, with bounded patience."""
        if self._closed:
            raise TransportError(f"the transport to {self._broker} was closed. Make another one.")
        if self._parts is not None:
            return
        problem = unusable() if self._fast else ""
        if problem:
            log.warning("the hot path cannot be used, publishing and consuming are slower: %s", problem)
            self._fast = False
        parts = self._assembled()
        try:
            await parts.publishing.open(self._patience)
            async with asyncio.timeout(self._patience.total_seconds()):
                fast = await parts.publisher.ready()
        except BaseException as failure:
            await parts.close()
            if isinstance(failure, TimeoutError):
                raise TransportError(
                    f"the broker at {self._broker} opens no channel: {parts.publishing.last_error}."
                ) from None
            raise
        self._fast = parts.control.tapped = fast
        self._parts = parts

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Create queues with their dead letters, exchanges and bindings; passive, see that all of it is there."""
        parts = self._opened()
        await parts.control.open(self._patience)
        await parts.topology.declare(queues)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, pipelined."""
        if self._closed:
            return [
                NotConfirmed(outgoing.envelope.message_id, str(outgoing.destination), "the transport is closed")
                for outgoing in messages
            ]
        return await self._opened().publisher.publish(messages, timeout)

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> RabbitSubscription:
        """Consume a declared queue.

        Raises:
            TransportError: it does not exist, or the broker is away.
        """
        parts = self._opened()
        subscription = RabbitSubscription(
            queue,
            prefetch_messages=prefetch_messages,
            link=self._consuming_link(parts, queue),
            topology=parts.topology,
            publisher=parts.publisher,
        )
        await subscription.start(self._patience)
        self._subscriptions = [known for known in self._subscriptions if not known.ended]
        self._subscriptions.append(subscription)
        return subscription

    @asynccontextmanager
    async def dead_letters(self, queue: str) -> AsyncGenerator[RabbitLook]:
        """Look at the dead letters of a queue; nobody else sees them for as long as the block lasts."""
        parts = self._opened()
        await parts.control.open(self._patience)
        link = self._consuming_link(parts, dead_letter_queue(queue))
        async with looking(queue, link, parts.topology, parts.publisher) as look:
            yield look

    async def dead_letter_count(self, queue: str) -> int | None:
        """How many there are, without those in somebody's hands; None when the queue keeps none."""
        state = await self.queue_state(dead_letter_queue(queue))
        return None if state is None else state.ready

    async def queue_state(self, queue: str) -> QueueState | None:
        """How many messages are ready, and how many consumers there are; None when there is no such queue."""
        parts = self._opened()
        await parts.control.open(self._patience)
        return await parts.topology.state(queue)

    async def close(self) -> None:
        """Disconnect; what was not settled goes back to its queue."""
        self._closed = True
        parts, self._parts = self._parts, None
        subscriptions, self._subscriptions = self._subscriptions, []
        links, self._links = self._links, []
        if parts is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(2 * CLOSE_SECONDS):
                await asyncio.gather(*(subscription.end() for subscription in subscriptions))
        await asyncio.gather(parts.close(), *(link.close() for link in links))

    def _consuming_link(self, parts: _Parts, queue: str) -> Link:
        if self._fast:
            return parts.control
        # Without the hot path a message that cannot be decoded ends the connection: let it be nobody else's.
        link = Link(self._broker, f"consuming {self.full_name(queue)}", tapped=False)
        self._links.append(link)
        return link

    def _opened(self) -> _Parts:
        if self._parts is None:
            state = "closed" if self._closed else "not open; call open() first"
            raise TransportError(f"the transport to {self._broker} is {state}.")
        return self._parts

    def _assembled(self) -> _Parts:
        publishing = Link(self._broker, "publishing", tapped=self._fast)
        control = Link(self._broker, "consuming", tapped=self._fast)
        topology = Topology(control, self._layout, passive=self._passive)
        control.on_reconnected = topology.restore_all
        publisher = Publisher(publishing, topology, app_id=self._broker.app_id, max_body_bytes=self._max_body_bytes)
        return _Parts(publishing, control, topology, publisher)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an open transport consists of."""

    publishing: Link
    control: Link
    topology: Topology
    publisher: Publisher

    async def close(self) -> None:
        await self.publisher.close()
        await asyncio.gather(self.publishing.close(), self.control.close())
