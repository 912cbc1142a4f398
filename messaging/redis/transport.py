"""Redis Streams as the bus sees them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from redis.exceptions import ResponseError

from messaging.backoff import Backoff
from messaging.errors import NotConfirmed, PublishError, TransportError
from messaging.queue_state import QueueState
from messaging.redis import dead_letters
from messaging.redis.consumer import state_of
from messaging.redis.dead_letters import RedisLook
from messaging.redis.handled import Handled
from messaging.redis.keys import Keys
from messaging.redis.publisher import Publisher
from messaging.redis.server import SERVER_ERRORS, Client, Server, refused
from messaging.redis.subscription import RedisSubscription
from messaging.redis.topology import Topology
from messaging.transport import Outgoing, Promises, QueueSpec

log = logging.getLogger(__name__)

_CLOSE_SECONDS: Final = 10.0


class RedisTransport:
    """Queues of a Redis server, 7.0 or newer, as streams with a consumer group each.

    A queue's full name is the key of its stream. Nothing here gives up on a server that is away, except
    `open` and what has a timeout.

    Args:
        url: `redis://user:password@host:port/database`, `rediss://` with TLS, or `unix://path`.
        prefix: all keys begin with it, so that two systems can share a database.
        app_id: the sender's name in messages and connections.
        survives_restart: whether what the server has confirmed outlives its restart; None asks it, and
            believes so only of an append-only file that is written to disk before each answer.
        max_body_bytes: a larger body is refused before it is sent.
        patience: how long `open` and `subscribe` wait for the server.
        answer_timeout: a command without an answer for so long ends its connection.
        connect_timeout: how long one attempt to connect may take.
        dead_after: a consumer that was not heard of for so long has its messages taken over. Each tells
            once a second that it lives, so slow handlers do not matter; a blocked event loop does.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "",
        app_id: str = "",
        survives_restart: bool | None = None,
        max_body_bytes: int = 1 << 20,
        patience: timedelta = timedelta(seconds=30),
        answer_timeout: timedelta = timedelta(seconds=10),
        connect_timeout: timedelta = timedelta(seconds=10),
        dead_after: timedelta = timedelta(seconds=60),
    ) -> None:
        self._server = Server(url, app_id, answer_timeout, connect_timeout)
        self._keys = Keys(prefix)
        self._survives = survives_restart
        self._max_body_bytes = max_body_bytes
        self._patience, self._dead_after = patience, dead_after
        self._subscriptions: list[RedisSubscription] = []
        self._parts: _Parts | None = None
        self._closed = False

    @property
    def promises(self) -> Promises:
        """All but surviving a restart, which is the server's to keep and known once the transport is open."""
        return Promises(
            survives_restart=bool(self._survives),
            keeps_order=True,
            broadcasts=True,
            delays=True,
            detects_unroutable=True,
            dead_letters=True,
            parts=True,
        )

    def full_name(self, queue: str) -> str:
        """The key of the queue's stream."""
        return self._keys.full(queue)

    async def open(self) -> None:
        """Connect, with bounded patience."""
        if self._closed:
            raise TransportError(f"the transport to {self._server} was closed. Make another one.")
        if self._parts is not None:
            return
        client = self._client()
        try:
            await self._greet(client)
            if self._survives is None:
                self._survives = await keeps_what_it_confirms(client)
        except BaseException:
            await client.close()
            raise
        self._parts = self._assembled(client, survives=self._survives)

    async def declare(self, queues: Sequence[QueueSpec]) -> None:
        """Create queues with their dead letters, and bindings."""
        await self._opened().topology.declare(queues)

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        """Publish all, pipelined."""
        if self._closed:
            return [
                NotConfirmed(outgoing.envelope.message_id, str(outgoing.destination), "the transport is closed")
                for outgoing in messages
            ]
        return await self._opened().publisher.publish(messages, timeout)

    async def subscribe(self, queue: str, *, prefetch_messages: int) -> RedisSubscription:
        """Consume a declared queue.

        Raises:
            TransportError: it does not exist, or the server is away.
        """
        parts = self._opened()
        subscription = RedisSubscription(
            queue,
            prefetch_messages=prefetch_messages,
            client=parts.client,
            topology=parts.topology,
            dead_after=self._dead_after,
        )
        await subscription.start(self._patience)
        self._subscriptions = [known for known in self._subscriptions if not known.ended]
        self._subscriptions.append(subscription)
        return subscription

    def dead_letters(self, queue: str) -> AbstractAsyncContextManager[RedisLook]:
        """Look at the dead letters of a queue, those in somebody's hands too."""
        return dead_letters.looking(self._opened().client, queue, self._keys.queue(queue))

    async def dead_letter_count(self, queue: str) -> int | None:
        """How many there are; None when the queue keeps none."""
        return await dead_letters.count(self._opened().client, self._keys.queue(queue))

    async def queue_state(self, queue: str) -> QueueState | None:
        """How many entries are in nobody's hands, and how many consumers live; None when there is no such queue."""
        client, keys = self._opened().client, self._keys.queue(queue)
        try:
            return await state_of(client, keys, self._dead_after)
        except SERVER_ERRORS as problem:
            text = f"queue {keys.stream!r} cannot be asked about: {client.server.told(problem)}."
            raise TransportError(text) from problem

    async def close(self) -> None:
        """Disconnect; what was not settled goes back to its queue."""
        self._closed = True
        parts, self._parts = self._parts, None
        subscriptions, self._subscriptions = self._subscriptions, []
        if parts is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*(subscription.end() for subscription in subscriptions))
        await parts.handled.close()
        await parts.client.close()

    def _client(self) -> Client:
        try:
            return Client(self._server)
        except ValueError as problem:
            raise TransportError(
                f"{self._server} is no URL of a server: {self._server.masked(str(problem))}."
            ) from None

    async def _greet(self, client: Client) -> None:
        backoff, last_error = Backoff(), "no attempt has ended yet"
        try:
            async with asyncio.timeout(self._patience.total_seconds()):
                while True:
                    try:
                        await client.command("PING")
                        return
                    except SERVER_ERRORS as problem:
                        last_error = self._server.told(problem)
                        if refused(problem):
                            raise TransportError(
                                f"the server at {self._server} refuses us: {last_error}. "
                                "Check user, password and database."
                            ) from None
                    await asyncio.sleep(backoff.next())
        except TimeoutError:
            raise TransportError(
                f"the server at {self._server} does not answer within {self._patience.total_seconds():g} s: "
                f"{last_error}. Check the URL and that the server runs."
            ) from None

    def _opened(self) -> _Parts:
        if self._parts is None:
            state = "closed" if self._closed else "not open; call open() first"
            raise TransportError(f"the transport to {self._server} is {state}.")
        return self._parts

    def _assembled(self, client: Client, *, survives: bool) -> _Parts:
        topology, handled = Topology(client, self._keys), Handled(client, self._keys)
        publisher = Publisher(
            client,
            topology,
            handled,
            app_id=self._server.app_id,
            max_body_bytes=self._max_body_bytes,
            waits=not survives,
        )
        return _Parts(client, topology, handled, publisher)


@dataclass(frozen=True, slots=True)
class _Parts:
    """What an open transport consists of."""

    client: Client
    topology: Topology
    handled: Handled
    publisher: Publisher


async def keeps_what_it_confirms(client: Client) -> bool:
    """Whether the server says that each change is on its disk before it answers; false when it does not say."""
    try:
        answers = [await client.command("CONFIG", "GET", name) for name in ("appendonly", "appendfsync")]
    except ResponseError as problem:
        log.info("%s does not tell how it keeps data (%s): taken as not surviving a restart", client.server, problem)
        return False
    except SERVER_ERRORS as problem:
        raise TransportError(f"{client.server} is gone again: {client.server.told(problem)}.") from problem
    return [answer[1:2] for answer in answers] == [[b"yes"], [b"always"]]
