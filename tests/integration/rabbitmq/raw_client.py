"""Publishes what no decent client would: properties as raw bytes, over a socket of its own."""

from __future__ import annotations

import asyncio
import struct

from yarl import URL

from messaging.rabbitmq.wire import BYTE, FRAME, LONG, LONGLONG, SHORT, publish_address

_OK = b"\x00\x00\x00\x00"


async def publish_raw(url: str, queue: str, properties: bytes, body: bytes) -> None:
    """Publish to a queue with these property flags and values, and return when the broker has it."""
    target = URL(url)
    reader, writer = await asyncio.open_connection(target.host, target.port)

    async def method(channel: int) -> bytes:
        while True:
            kind, _, size = FRAME.unpack(await reader.readexactly(7))
            payload = (await reader.readexactly(size + 1))[:-1]
            if kind == 1:
                return payload

    def frame(kind: int, channel: int, payload: bytes) -> None:
        writer.write(FRAME.pack(kind, channel, len(payload)) + payload + b"\xce")

    def short(text: bytes) -> bytes:
        return BYTE.pack(len(text)) + text

    writer.write(b"AMQP\x00\x00\x09\x01")
    await method(0)
    login = b"\x00" + (target.user or "guest").encode() + b"\x00" + (target.password or "guest").encode()
    frame(1, 0, b"\x00\x0a\x00\x0b" + _OK + short(b"PLAIN") + LONG.pack(len(login)) + login + short(b"en_US"))
    tune = await method(0)
    frame(1, 0, b"\x00\x0a\x00\x1f" + tune[4:10] + SHORT.pack(0))
    frame(1, 0, b"\x00\x0a\x00\x28" + short(target.path[1:].encode() or b"/") + b"\x00\x00")
    await method(0)
    frame(1, 1, b"\x00\x14\x00\x0a\x00")
    await method(1)
    frame(1, 1, b"\x00\x55\x00\x0a\x00")
    await method(1)
    frame(1, 1, b"\x00\x3c\x00\x28\x00\x00" + publish_address("", queue) + b"\x00")
    frame(2, 1, b"\x00\x3c\x00\x00" + LONGLONG.pack(len(body)) + properties)
    frame(3, 1, body)
    confirm = await asyncio.wait_for(method(1), 30)
    assert confirm[:4] == b"\x00\x3c\x00\x50", f"not confirmed: {confirm!r}"
    writer.close()


def short_property(bit: int, value: bytes) -> bytes:
    """The flags and value of a single short-string property."""
    return SHORT.pack(1 << bit) + BYTE.pack(len(value)) + value


def absurd_timestamp() -> bytes:
    """A timestamp some hundred million years from now."""
    return SHORT.pack(1 << 6) + struct.pack(">Q", 2**62)


def deep_headers(depth: int) -> bytes:
    """Headers nested so deeply that a decoder which calls itself gives up."""
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + LONG.pack(len(table)) + table
    return SHORT.pack(1 << 13) + LONG.pack(len(table)) + table
