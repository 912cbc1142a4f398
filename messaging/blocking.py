"""The bus for threads: Django, Flask, scripts, and whatever else has no event loop."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from messaging.background import Background
from messaging.bus import Bus
from messaging.codec import DEFAULT_LIMITS, Limits
from messaging.compose import Composer
from messaging.envelope import EVENTS_EXCHANGE, Destination, ExchangeKind, HeaderValue
from messaging.errors import TransportError
from messaging.messages import Command, Event, Reply
from messaging.middleware import Middleware, composed, passed_on_here
from messaging.service import Service
from messaging.serving import serving, show_logs, stop_signal, tell_running, tell_stopping
from messaging.transport import Outgoing, Transport

if TYPE_CHECKING:
    from messaging.outbox import Relay
    from messaging.sql.sessions import BlockingSession, Sessions

R = TypeVar("R", bound=Reply)
T = TypeVar("T")


class BlockingBus:
    """A `Bus` whose methods block; any thread may call them, many at a time.

        bus = BlockingBus()                  # where the settings say; nothing is opened yet

        with bus:
            bus.publish(OrderPaid(order_id=order.id))
            reply = bus.request(ReserveCredit(...), to="customers", timeout=timedelta(seconds=5))

    One event loop in a daemon thread of its own serves all callers. It starts with the first call that
    needs it, or with `start`. A process that is forked from one with a started bus has one that is not
    started, with the same settings: it connects anew at its first call, and shares no connection.

    Args:
        connect: makes the transport, not open, each time the bus starts; by default from the settings.
        name: who sends, as receivers see it; also the beginning of the reply queue's name.
        timeout: how long the broker may take to confirm.
        limits: what a body may be at most.
        outbox: makes sessions of the database whose outbox this bus is to send while it is started, at once
            after a commit in this process. Without it, what is written with `session=` waits for whoever
            else relays that database: a service with these `sessions`, in any process. When the broker is
            away too long for starting, the next call tries again.
        schema: the database schema of the outbox.
        reply_queue: where this bus alone hears answers. When empty, a new one each time it starts.
        services: served in the bus's own loop while it is started: in memory, there is no other way to
            reach them.
    """

    def __init__(
        self,
        connect: Callable[[], Transport] | None = None,
        *,
        name: str = "bus",
        timeout: timedelta = timedelta(seconds=10),
        limits: Limits = DEFAULT_LIMITS,
        outbox: Sessions | None = None,
        schema: str | None = None,
        reply_queue: str = "",
        services: Sequence[Service] = (),
    ) -> None:
        self._connect = connect or _configured
        self._name, self._timeout, self._limits = name, timeout, limits
        self._outbox, self._schema, self._reply_queue = outbox, schema, reply_queue
        self._services = tuple(services)
        self._middleware: list[Middleware] = []
        self._around = composed(self._middleware).publish
        self._compose = Composer(name, limits)
        self._lock = threading.Lock()
        self._life: Background[_Parts] | None = None
        self._closed = False
        self._of_parents: list[Background[_Parts]] = []
        _buses.add(self)

    def __enter__(self) -> BlockingBus:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def use(self, *middleware: Middleware) -> None:
        """Put middleware around what this bus sends; the first is outermost.

        To be called before the bus is started. It runs in the bus's loop; around what is written with
        `session=`, in a short-lived loop beside the caller's thread.
        """
        self._middleware += middleware
        self._around = composed(self._middleware).publish

    def start(self) -> None:
        """Connect, now and not with the first call; also after `close`. Nothing happens when it is started.

        Raises:
            TransportError: the broker cannot be reached.
        """
        self._closed = False
        self._call(_nothing)

    def run(self) -> None:
        """Start, serve until SIGTERM or Ctrl-C, and close; a second signal exits at once. Meanwhile threads may use it.

        To be called in the main thread.

        Raises:
            TransportError: the broker cannot be reached, or a service can consume no more.
        """
        show_logs()
        asyncio.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        stop = stop_signal()
        await asyncio.to_thread(self.start)
        tell_running(self._services)
        stopped = asyncio.create_task(stop.wait())
        over = asyncio.create_task(self._alive().over())
        try:
            await asyncio.wait([stopped, over], return_when=asyncio.FIRST_COMPLETED)
            tell_stopping()
        finally:
            await asyncio.to_thread(self.close)
            stopped.cancel()
            await over

    def close(self) -> None:
        """Finish the services' work, disconnect, and end the thread; calls under way fail. Idempotent."""
        with self._lock:
            self._closed = True
            life, self._life = self._life, None
        if life is not None:
            life.end()

    def send(
        self,
        command: Command[Any],
        *,
        to: str | Destination,
        session: BlockingSession | None = None,
        idempotency_key: str = "",
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> str:
        """Send an order that nobody waits for; return its message id. See `Bus.send`.

        Raises:
            TransportError: the bus is closed, or cannot connect. Nothing was sent.
        """
        if session is not None:
            order = self._compose.order(
                command, to, idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers
            )
            return self._write(order, session)
        return self._call(
            lambda bus: bus.send(
                command, to=to, idempotency_key=idempotency_key, ordering_key=ordering_key, headers=headers
            )
        )

    def publish(
        self,
        event: Event,
        *,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        session: BlockingSession | None = None,
        ordering_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> str:
        """Tell all subscribers; return the message id. See `Bus.publish`.

        Raises:
            TransportError: the bus is closed, or cannot connect. Nothing was sent.
        """
        if session is not None:
            return self._write(self._compose.news(event, exchange, kind, key, headers, ordering_key), session)
        return self._call(
            lambda bus: bus.publish(
                event, exchange=exchange, kind=kind, key=key, ordering_key=ordering_key, headers=headers
            )
        )

    def request(
        self,
        command: Command[R],
        *,
        to: str | Destination,
        timeout: timedelta = timedelta(seconds=30),
        idempotency_key: str = "",
        headers: Mapping[str, HeaderValue] | None = None,
    ) -> R:
        """Send an order and wait for its reply. See `Bus.request`.

        Raises:
            TransportError: the bus is closed, or cannot connect. Closed while waiting, the order may have been
                carried out.
        """
        return self._call(
            lambda bus: bus.request(command, to=to, timeout=timeout, idempotency_key=idempotency_key, headers=headers)
        )

    def _write(self, outgoing: Outgoing, session: BlockingSession) -> str:
        """In the caller's thread, which is the session's; needs no broker."""
        from messaging.sql.writing import after_commit, write_outgoing

        if self._outbox is not None:
            self._alive()  # the relay is about to be needed

        def write(passed: Outgoing) -> None:
            write_outgoing(session, [passed], schema=self._schema)

        if self._around is None:
            write(outgoing)
        else:
            passed_on_here(self._around, outgoing, write)
        if self._outbox is not None:
            after_commit(session, self._nudge)
        return outgoing.envelope.message_id

    def _nudge(self) -> None:
        part = self._life.part if self._life is not None else None
        if part is not None and part.relay is not None:
            part.relay.nudge()

    def _call(self, ask: Callable[[Bus], Coroutine[Any, Any, T]]) -> T:
        return self._alive().call(lambda parts: ask(parts.bus))

    def _alive(self) -> Background[_Parts]:
        """The loop, started if need be; it may be opening still."""
        with self._lock:
            if self._closed:
                raise TransportError(f"bus {self._name!r} is closed. Call start() to open it again.")
            if self._life is None or self._life.ended:
                self._life = Background(f"bus {self._name!r}", self._opened)
            return self._life

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[_Parts]:
        async with AsyncExitStack() as stack:
            transport = self._connect()
            await transport.open()
            stack.push_async_callback(transport.close)
            relay = await self._relaying(transport, stack)
            failed = await stack.enter_async_context(serving(self._services, transport, limits=self._limits))
            bus = Bus(
                transport, name=self._name, timeout=self._timeout, limits=self._limits, reply_queue=self._reply_queue
            )
            bus.use(*self._middleware)
            yield _Parts(await stack.enter_async_context(bus), relay, failed)

    async def _relaying(self, transport: Transport, stack: AsyncExitStack) -> Relay | None:
        if self._outbox is None:
            return None
        from messaging.outbox import Relay, relaying
        from messaging.sql.outbox import SqlOutbox

        relay = Relay(SqlOutbox(self._outbox, schema=self._schema), transport)
        return await stack.enter_async_context(relaying(relay))

    def forget_parent(self) -> None:
        """Called in a forked process: start anew when needed, and touch nothing of the parent's."""
        self._lock = threading.Lock()  # another thread may have held the old one
        if self._life is not None:
            self._of_parents.append(self._life)  # kept: its end would close sockets that the parent uses
            self._life = None


@dataclass(frozen=True, slots=True)
class _Parts:
    """What is open while a bus is started."""

    bus: Bus
    relay: Relay | None
    failed: asyncio.Event


async def _nothing(_: Bus) -> None:
    """A call that only needs the bus to be open."""


def _configured() -> Transport:
    from messaging.settings import MessagingSettings
    from messaging.wiring import transport_from

    return transport_from(MessagingSettings(), app_id="sagasmith")


_buses: weakref.WeakSet[BlockingBus] = weakref.WeakSet()


def _forget_parent() -> None:
    for bus in _buses:
        bus.forget_parent()


@atexit.register
def _close_all() -> None:
    """Say goodbye to the broker; nothing is lost without, since calls return when their message is safe."""
    for bus in list(_buses):
        bus.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)
