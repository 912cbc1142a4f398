"""A connection that comes back, and the short words for what a broker or a socket does to it."""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

import aio_pika
from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError
from yarl import URL

from messaging.errors import TransportError
from messaging.rabbitmq.refusals import Refused, remedy_for
from messaging.rabbitmq.tap import FrameTap, TapFactory

log = logging.getLogger(__name__)

T = TypeVar("T")

RPC_SECONDS: Final = 10.0
"""How long the broker may take to answer one synchronous method."""
CLOSE_SECONDS: Final = 5.0

# What aio-pika and aiormq raise for a broker that is away, slow or of another opinion.
BROKER_ERRORS: Final = (AMQPError, OSError, RuntimeError, TimeoutError, EOFError)


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and how to greet it."""

    url: str
    app_id: str = ""
    heartbeat: timedelta = timedelta(seconds=10)
    connect_timeout: timedelta = timedelta(seconds=10)
    ssl_context: ssl.SSLContext | None = None
    server_name: str = ""
    """What the broker's certificate is for, where that is not the URL's host."""

    def __str__(self) -> str:
        url = self._parsed().with_query(None)  # files and more may be named there
        return str(url.with_password("***") if url.password else url)

    def __repr__(self) -> str:
        return f"Broker({self})"

    def _parsed(self) -> URL:
        try:
            return URL(self.url)
        except ValueError:
            return URL("amqp://unreadable-url")

    @property
    def hint(self) -> str:
        """What else to think of when it does not answer: over TLS its reason may be lost with the connection."""
        if self._parsed().scheme != "amqps":
            return ""
        return " It may demand a certificate of its clients: MESSAGING_TLS_CERTIFICATE_FILE, MESSAGING_TLS_KEY_FILE."

    def masked(self, text: str) -> str:
        """The text without the password, in case a library wrote it there."""
        url = self._parsed()
        for secret in (url.raw_password, url.password):
            if secret and len(secret) > 2:
                text = text.replace(secret, "***")
        return text

    def connection(self, purpose: str) -> aio_pika.Connection:
        """A connection that is not connected yet; its name is seen in the broker's management."""
        name = f"{self.app_id} {purpose}".strip()
        url = self._parsed()
        if "heartbeat" not in url.query:
            url = url.update_query(heartbeat=str(max(1, round(self.heartbeat.total_seconds()))))
        made = aio_pika.Connection(url, ssl_context=self.ssl_context, client_properties={"connection_name": name})
        if self.server_name:
            made.kwargs["server_hostname"] = self.server_name  # handed on to the socket's maker as it is
        return made


class Backoff:
    """Delays that double up to five seconds, with some jitter so that replicas do not come all at once."""

    def __init__(self) -> None:
        self._next = 0.1

    def next(self) -> float:
        """Seconds to wait now."""
        delay, self._next = self._next, min(5.0, self._next * 2)
        return delay * random.uniform(0.8, 1.2)

    def reset(self) -> None:
        """All is well again."""
        self._next = 0.1


async def unharmed(awaitable: Awaitable[T]) -> T:
    """Await something of aio-pika's, whose `CancelledError` may mean that the connection was lost.

    Raises:
        ConnectionError: it was cancelled, and not because our own task is.
    """
    try:
        return await awaitable
    except asyncio.CancelledError as problem:
        if cancelled_ourselves(problem):
            raise
        raise ConnectionError("connection lost") from None
    except Exception as problem:
        if type(problem) is not Exception:
            raise
        # What aiormq raises for a task of its own that was cancelled before anybody had said why.
        raise ConnectionError("connection lost") from problem


def cancelled_ourselves(problem: BaseException) -> bool:
    """Whether this is the cancellation of our own task, rather than aio-pika's way to say: connection lost."""
    task = asyncio.current_task()
    return isinstance(problem, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def keeps_on(problem: BaseException) -> None:
    """Let a loop that nobody but its owner ends go on, whatever the libraries beneath have raised.

    When a connection is lost in an awkward moment that may be anything: a cancellation, an attribute of None.

    Raises:
        CancelledError: the owner ends it.
    """
    if cancelled_ourselves(problem):
        raise problem
    if not isinstance(problem, (TransportError, asyncio.CancelledError, *BROKER_ERRORS)):
        log.warning("not expected of a lost connection, and taken as one: %s", told(problem), exc_info=problem)


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


def told(problem: BaseException | None) -> str:
    """What an exception says, or its name when it says nothing."""
    if problem is None or isinstance(problem, asyncio.CancelledError):
        return "no reason given"
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__


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
