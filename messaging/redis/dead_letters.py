"""Looking at the stream of dead letters, which takes nothing and tells nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from messaging.dead_letter_notes import DeadLetter, dead_letter
from messaging.envelope import Destination
from messaging.errors import NotConfirmed, TransportError, UnknownQueue, Unroutable
from messaging.redis import fields, scripts
from messaging.redis.keys import QueueKeys
from messaging.redis.lua import run
from messaging.redis.server import SERVER_ERRORS, Client

_AT_ONCE: Final = 100
_NO_QUEUE: Final = -1


class RedisLook:
    """The dead letters of one queue up to the newest there was when the look began."""

    def __init__(self, client: Client, queue: str, keys: QueueKeys, newest: bytes) -> None:
        self._client, self._queue, self._keys = client, queue, keys
        self._newest = newest
        self._after = b"-" if newest else b""
        self._read: deque[tuple[bytes, Sequence[bytes]]] = deque()

    async def next(self) -> DeadLetter | None:
        """The next one, oldest first."""
        if not self._read and self._after:
            await self._read_on()
        if not self._read:
            return None
        entry, raw = self._read.popleft()
        envelope, _, problem = fields.decoded(fields.by_name(raw))
        return dead_letter(envelope, self._queue, problem=problem, place=entry)

    async def replay(self, letter: DeadLetter) -> None:
        """Move the message to its queue in one step, unless somebody has taken the letter."""
        stream = self._keys.stream
        try:
            taken = await run(self._client, scripts.REPLAY, [self._keys.dead, stream], letter.place)
        except SERVER_ERRORS as problem:
            raise NotConfirmed(letter.id, str(Destination(stream)), self._client.server.told(problem)) from problem
        if taken == _NO_QUEUE:
            raise Unroutable(letter.id, str(Destination(stream)))

    async def remove(self, letter: DeadLetter) -> None:
        """Delete the letter."""
        try:
            await run(self._client, scripts.REMOVE, [self._keys.dead], letter.place)
        except SERVER_ERRORS as problem:
            raise away(self._client, self._keys, problem) from problem

    async def _read_on(self) -> None:
        words = ("XRANGE", self._keys.dead, self._after, self._newest, "COUNT", _AT_ONCE)
        try:
            found: list[Any] = await self._client.command(*words)
        except SERVER_ERRORS as problem:
            raise away(self._client, self._keys, problem) from problem
        self._read.extend((entry, raw) for entry, raw in found)
        self._after = b"(" + found[-1][0] if found else b""


def away(client: Client, keys: QueueKeys, problem: BaseException) -> TransportError:
    """What to say when the stream cannot be asked."""
    return TransportError(f"the dead letters in {keys.dead!r} cannot be read: {client.server.told(problem)}.")


async def count(client: Client, keys: QueueKeys) -> int | None:
    """How many dead letters there are; None when there is no such stream.

    Raises:
        TransportError: the server is away.
    """
    try:
        exists, length = await client.commands([("EXISTS", keys.dead), ("XLEN", keys.dead)])
    except SERVER_ERRORS as problem:
        raise away(client, keys, problem) from problem
    return int(length) if exists else None


@asynccontextmanager
async def looking(client: Client, queue: str, keys: QueueKeys) -> AsyncGenerator[RedisLook]:
    """Look at the dead letters of a queue."""
    if await count(client, keys) is None:
        raise UnknownQueue(queue, keys.dead, str(client.server))
    try:
        newest: list[Any] = await client.command("XREVRANGE", keys.dead, "+", "-", "COUNT", 1)
    except SERVER_ERRORS as problem:
        raise away(client, keys, problem) from problem
    yield RedisLook(client, queue, keys, newest[0][0] if newest else b"")
