"""The hot path: frames of our own channels, taken off and put on the connection's socket directly.

aiormq reads every frame in three steps, decodes it field by field and starts a task per delivery; it scans
all open confirms for each multiple acknowledgement; and a property that it cannot decode ends the
connection. So on the channels registered here deliveries, confirms and returns never reach it. All the
rest stays its own: the handshake, heartbeats, opening and closing, every synchronous method.

What is touched of aiormq is one argument, `transport_factory`; `unusable` says whether this
version has it, and the first publishing channel is tried out before anything is sent over it.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterable
from typing import Any, Protocol, cast

import aio_pika
from aiormq.connection import Connection as AiormqConnection
from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError
from yarl import URL

from messaging.rabbitmq import wire
from messaging.rabbitmq.wire import FRAME, LONGLONG, SHORT

_WRITE_BUFFER_BYTES = 1 << 20
_SIGN_OF_LIFE_SECONDS = 1.0


class Listener(Protocol):
    """Who a channel's frames are for. Called from the socket's callback: must be quick and not raise."""

    def delivered(self, method: bytes, properties: bytes, body: bytes) -> None:
        """A whole message has come for a consumer."""
        ...

    def returned(self, method: bytes, properties: bytes) -> None:
        """A mandatory message has come back; its confirm follows."""
        ...

    def confirmed(self, tag: int, *, multiple: bool, positive: bool) -> None:
        """The broker answers for one message, or for all up to it."""
        ...

    def gone(self, reason: str) -> None:
        """The channel or its connection is gone."""
        ...


class _Content:
    """A message of which the frames are still coming."""

    __slots__ = ("left", "method", "parts", "properties")

    def __init__(self, method: bytes) -> None:
        self.method, self.properties, self.parts = method, b"", list[bytes]()
        self.left = -1


class FrameTap(asyncio.StreamReaderProtocol):
    """A socket whose frames go to the listener of their channel, and to aiormq's reader otherwise."""

    def __init__(self, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._loop_time = loop.time
        self._rest = b""
        self._listeners: dict[int, Listener] = {}
        self._coming: dict[int, _Content] = {}
        self._verbatim = False
        self._last_passed_on = loop.time()
        self._transport_in_use: asyncio.Transport | None = None
        self.blocked = ""
        """Why the broker takes no messages from this connection at the moment, else empty."""
        self.close_reason = ""
        """What the broker said when it closed the connection."""
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for writing."""
        super().connection_made(transport)
        # Not asked whether it is one: other loops' transports, uvloop's say, are none by class.
        self._transport_in_use = cast(asyncio.Transport, transport)
        self._transport_in_use.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell every listener, then aiormq."""
        reason = self.close_reason or (f"connection lost: {exc}" if exc else "connection lost")
        for number in list(self._listeners):
            self._forget(number, reason)
        self.writable.set()
        self.unblocked.set()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """More waits to be written than the buffer should hold."""
        self.writable.clear()
        super().pause_writing()

    def resume_writing(self) -> None:
        """There is room again."""
        self.writable.set()
        super().resume_writing()

    def listen(self, channel: int, listener: Listener) -> None:
        """Hand deliveries, confirms and returns of this channel to `listener`, until it is closed."""
        self._listeners[channel] = listener

    def write(self, frames: Iterable[bytes]) -> None:
        """Write whole frames at once; nothing of aiormq's can come in between."""
        if self._transport_in_use is not None and not self._transport_in_use.is_closing():
            self._transport_in_use.write(b"".join(frames))

    def data_received(self, data: bytes) -> None:
        """Sort the frames; keep what is not a whole frame yet."""
        if self._verbatim:
            super().data_received(data)
            return
        buffer = self._rest + data if self._rest else data
        at, end = 0, len(buffer)
        passed_on: list[bytes] = []
        listeners = self._listeners
        while end - at >= 8:
            kind, channel, size = FRAME.unpack_from(buffer, at)
            next_at = at + 8 + size
            if kind not in _KINDS or (next_at <= end and buffer[next_at - 1] != 0xCE):
                # Not AMQP as we know it: let aiormq see it and say so.
                self._verbatim = True
                passed_on.append(buffer[at:])
                at = end
                break
            if next_at > end:
                break
            listener = listeners.get(channel)
            if listener is None or not self._takes(listener, channel, kind, buffer, at + 7, next_at - 1):
                passed_on.append(buffer[at:next_at])
                if kind == wire.METHOD_FRAME:
                    self._look_at(channel, buffer[at + 7 : next_at - 1])
            at = next_at
        self._rest = buffer[at:]
        now = self._loop_time()
        if not passed_on and at and now - self._last_passed_on > _SIGN_OF_LIFE_SECONDS:
            # A broker that is busy delivering sends no heartbeats, and aiormq must not take it for dead.
            passed_on.append(wire.HEARTBEAT)
        if passed_on:
            self._last_passed_on = now
            super().data_received(b"".join(passed_on))

    def _takes(self, listener: Listener, channel: int, kind: int, buffer: bytes, at: int, end: int) -> bool:
        if kind == wire.METHOD_FRAME:
            method = buffer[at : at + 4]
            if method in (wire.BASIC_DELIVER, wire.BASIC_RETURN):
                self._coming[channel] = _Content(buffer[at:end])
            elif method in (wire.BASIC_ACK, wire.BASIC_NACK):
                (tag,) = LONGLONG.unpack_from(buffer, at + 4)
                multiple, positive = buffer[at + 12] & 1 == 1, method == wire.BASIC_ACK
                listener.confirmed(tag, multiple=multiple, positive=positive)
            else:
                return False
            return True
        content = self._coming.get(channel)
        if content is None or kind == wire.HEARTBEAT_FRAME:
            return False
        if kind == wire.HEADER_FRAME:
            (content.left,) = LONGLONG.unpack_from(buffer, at + 4)
            content.properties = buffer[at + 12 : end]
        else:
            content.parts.append(buffer[at:end])
            content.left -= end - at
        if content.left <= 0:
            del self._coming[channel]
            self._complete(listener, content)
        return True

    @staticmethod
    def _complete(listener: Listener, content: _Content) -> None:
        if content.method.startswith(wire.BASIC_RETURN):
            listener.returned(content.method, content.properties)
        else:
            parts = content.parts
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            listener.delivered(content.method, content.properties, body)

    def _look_at(self, channel: int, method: bytes) -> None:
        """See in passing what concerns us of what goes to aiormq."""
        name = method[:4]
        if name == wire.CHANNEL_CLOSE:
            self._forget(channel, f"channel closed by the broker: {_closing_text(method)}")
        elif name == wire.CHANNEL_CLOSE_OK:
            self._forget(channel, "channel closed")
        elif channel == 0 and name == wire.CONNECTION_CLOSE:
            self.close_reason = f"connection closed by the broker: {_closing_text(method)}"
        elif channel == 0 and name == wire.CONNECTION_BLOCKED:
            self.blocked = method[5:].decode(errors="replace") or "no reason given"
            self.unblocked.clear()
        elif channel == 0 and name == wire.CONNECTION_UNBLOCKED:
            self.blocked = ""
            self.unblocked.set()

    def _forget(self, channel: int, reason: str) -> None:
        self._coming.pop(channel, None)
        listener = self._listeners.pop(channel, None)
        if listener is not None:
            listener.gone(reason)


_KINDS = frozenset((wire.METHOD_FRAME, wire.HEADER_FRAME, wire.BODY_FRAME, wire.HEARTBEAT_FRAME))


def _closing_text(method: bytes) -> str:
    (code,) = SHORT.unpack_from(method, 4)
    return f"{code} {method[7 : 7 + method[6]].decode(errors='replace')}"


class TapFactory(TransportFactory):
    """Makes aiormq's socket a tapped one."""

    def __init__(self) -> None:
        self.tap: FrameTap | None = None

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, with TLS for `amqps`.

        Raises:
            AMQPConnectionError: the host does not answer.
        """
        provider = kwargs.pop("ssl_context_provider")
        context = await provider.get_context() if url.scheme == "amqps" else None
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        tap = FrameTap(reader, loop)
        try:
            transport, _ = await loop.create_connection(
                lambda: tap, url.host or "localhost", url.port or 5672, ssl=context, **kwargs
            )
        except OSError as problem:
            raise AMQPConnectionError(*problem.args) from problem
        self.tap = tap
        return reader, asyncio.StreamWriter(transport, tap, reader, loop)

    def install(self, connection: aio_pika.Connection) -> None:
        """Have this connection connect through the factory; aio-pika hands its `kwargs` on to aiormq."""
        connection.kwargs["transport_factory"] = self


def unusable() -> str:
    """Why the installed aiormq and aio-pika cannot be tapped; empty when they can."""
    if "transport_factory" not in inspect.signature(AiormqConnection.__init__).parameters:
        return "aiormq's Connection takes no transport_factory"
    if "create" not in vars(TransportFactory):
        return "aiormq's TransportFactory has no create"
    return ""
