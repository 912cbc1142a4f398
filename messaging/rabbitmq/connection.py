"""A connection that comes back, and channels on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import aio_pika
from aiormq.abc import AbstractChannel

from messaging.backoff import Backoff
from messaging.errors import TransportError
from messaging.rabbitmq.broker import Broker
from messaging.rabbitmq.losses import BROKER_ERRORS, keeps_on, told, unharmed
from messaging.rabbitmq.refusals import Refused, remedy_for
from messaging.rabbitmq.tap import FrameTap, TapFactory

log = logging.getLogger(__name__)

RPC_SECONDS: Final = 10.0
"""How long the broker may take to answer one synchronous method."""
CLOSE_SECONDS: Final = 5.0


@dataclass(eq=False, slots=True)
class Session:
    """One life of a connection."""

    connection: aio_pika.Connection
    tap: FrameTap | None
    lost: asyncio.Future[str]

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Open a channel."""
        async with asyncio.timeout(RPC_SECONDS):
            channel = self.connection.channel(publisher_confirms=confirms, on_return_raises=confirms)
            await unharmed(channel.initialize())
            return await channel.get_underlay_channel()

    @property
    def frame_max(self) -> int:
        """The negotiated size of a frame; 0 on the wire means none, and then a common one is used."""
        transport = self.connection.transport
        negotiated = transport.connection.connection_tune.frame_max if transport is not None else 0
        return negotiated or 131072


@dataclass(eq=False)
class Link:
    """A connection that is made again whenever it is lost, until it is closed."""

    broker: Broker
    purpose: str
    tapped: bool
    on_reconnected: Callable[[], Awaitable[None]] | None = None
    """Called after every connection but the first."""
    last_error: str = "not connected yet"
    _remedy: str = ""
    """What to do about a refusal, in which waiting does not help."""
    _closed: bool = False
    _connected_before: bool = False
    _session: Session | None = None
    _task: asyncio.Task[None] | None = None
    _turn: asyncio.Event = field(default_factory=asyncio.Event)

    async def session(self) -> Session:
        """The connection as it lives now; waits for ever for one.

        Raises:
            TransportError: the link is closed.
        """
        while True:
            self._start()
            if self._session is not None and not self._session.lost.done():
                return self._session
            await self._turn.wait()

    async def open(self, patience: timedelta) -> None:
        """Connect within `patience`.

        Raises:
            TransportError: the broker does not answer or refuses us. A refusal is told at once.
        """
        try:
            async with asyncio.timeout(patience.total_seconds()):
                while self._session is None:
                    self._start()
                    await self._turn.wait()
                    if self._remedy:
                        verb = "is not trusted" if "VERIFY_FAILED" in self.last_error else "refuses us"
                        told = self.last_error.rstrip(".")
                        raise TransportError(f"the broker at {self.broker} {verb}: {told}. {self._remedy}")
        except TimeoutError:
            raise TransportError(
                f"the broker at {self.broker} does not answer within {patience.total_seconds():g} s: "
                f"{self.last_error}. Check the URL and that the broker runs.{self.broker.hint}"
            ) from None

    async def close(self) -> None:
        """Disconnect for good."""
        self._closed = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=2 * CLOSE_SECONDS)
        self._tell()

    def _start(self) -> None:
        if self._closed:
            raise TransportError(f"the transport to {self.broker} is closed.")
        if self._task is None:
            self._task = asyncio.create_task(self._keep_connected(), name=f"rabbitmq {self.purpose}")

    def _tell(self) -> None:
        """Wake everybody who waits for a turn of events."""
        self._turn.set()
        self._turn = asyncio.Event()

    async def _keep_connected(self) -> None:
        backoff, loop = Backoff(), asyncio.get_running_loop()
        while True:
            try:
                session = await self._connect()
            except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - see `keeps_on`
                keeps_on(problem)
                self._failed(problem)
            else:
                since = loop.time()
                await self._live(session)
                if loop.time() - since > 2.0:
                    backoff.reset()
            await asyncio.sleep(backoff.next())

    def _failed(self, problem: BaseException) -> None:
        error = self.broker.masked(told(problem))
        self._remedy = remedy_for(problem)
        if error != self.last_error:
            log.warning("cannot connect to %s (%s): %s; trying on", self.broker, self.purpose, error)
        self.last_error = error
        self._tell()

    async def _live(self, session: Session) -> None:
        """Offer the session until it is lost."""
        self._session, self._remedy = session, ""
        self._tell()
        restoring = None
        if self._connected_before and self.on_reconnected is not None:
            restoring = asyncio.ensure_future(self.on_reconnected())
        self._connected_before = True
        try:
            self.last_error = self.broker.masked(await asyncio.shield(session.lost))
            log.warning("%s (%s, %s); reconnecting", self.last_error, self.broker, self.purpose)
        finally:
            self._session = None
            if restoring is not None:
                restoring.cancel()
            await _closed(session.connection)

    async def _connect(self) -> Session:
        connection = self.broker.connection(self.purpose)
        factory = TapFactory()
        if self.tapped:
            factory.install(connection)
        try:
            # The URL's own connect timeout ends before the handshake does.
            async with asyncio.timeout(self.broker.connect_timeout.total_seconds()):
                await unharmed(connection.connect())
        except BaseException as problem:
            await _closed(connection)
            if factory.tap is not None and factory.tap.close_reason:
                raise Refused(factory.tap.close_reason) from problem
            raise
        session = Session(connection, factory.tap, asyncio.get_running_loop().create_future())

        def on_close(_: object, problem: BaseException | None = None) -> None:
            if not session.lost.done():
                known = factory.tap.close_reason if factory.tap is not None else ""
                session.lost.set_result(known or f"connection lost: {told(problem)}")

        connection.close_callbacks.add(on_close)
        return session


async def _closed(connection: aio_pika.Connection) -> None:
    with suppress(*BROKER_ERRORS):
        async with asyncio.timeout(CLOSE_SECONDS):
            await unharmed(connection.close())


def when_closed(channel: AbstractChannel, tell: Callable[[str], None]) -> None:
    """Call `tell` with the reason when a channel is closed, by whomever."""
    closing: asyncio.Future[Any] = channel.closing  # pyright: ignore

    def closed(future: asyncio.Future[Any]) -> None:
        tell(f"channel closed: {told(None if future.cancelled() else future.exception())}")

    closing.add_done_callback(closed)


@asynccontextmanager
async def passing_channel(link: Link) -> AsyncGenerator[AbstractChannel]:
    """A channel for a few synchronous methods: whatever the broker does to it harms nobody else."""
    session = await link.session()
    channel = await session.channel()
    try:
        yield channel
    finally:
        await close_channel(channel)


async def close_channel(channel: Any) -> None:
    """Close a channel if it is still open, within bounds."""
    if not channel.is_closed:
        with suppress(*BROKER_ERRORS):
            async with asyncio.timeout(CLOSE_SECONDS):
                await unharmed(channel.close())
