"""Waiting until what was published has been settled by everybody it went to.

The server counts the copies of such a message under a key of its own; settling one counts it down, in whichever
process. One task asks for all keys that are waited for.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any, Final

from messaging.backoff import Backoff
from messaging.redis.keys import Keys
from messaging.redis.server import SERVER_ERRORS, Client

_ASKED_EVERY: Final = 0.02
_ASKED_AT_ONCE: Final = 1000


class Handled:
    """The messages of this process that are yet to be handled."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._awaited: dict[str, asyncio.Future[bool]] = {}
        self._task: asyncio.Task[None] | None = None

    def new_key(self) -> str:
        """A key for one message, to be given to the server with it."""
        return self._keys.handling(uuid.uuid4().hex)

    async def wait(self, key: str) -> bool:
        """Wait until all copies are settled; false when the server has lost the count, and maybe the message."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._awaited[key] = future
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask(), name="redis: what is handled")
        try:
            return await future
        finally:
            del self._awaited[key]

    async def close(self) -> None:
        """Stop asking; whoever waits is told that nobody knows."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for future in self._awaited.values():
            if not future.done():
                future.set_result(False)

    async def _ask(self) -> None:
        backoff = Backoff()
        while self._awaited:
            try:
                await self._ask_once()
            except SERVER_ERRORS:
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()
                await asyncio.sleep(_ASKED_EVERY)

    async def _ask_once(self) -> None:
        keys = list(self._awaited)
        for start in range(0, len(keys), _ASKED_AT_ONCE):
            asked = keys[start : start + _ASKED_AT_ONCE]
            counts: list[Any] = await self._client.command("MGET", *asked)
            told = [(key, count) for key, count in zip(asked, counts, strict=True) if count is None or int(count) <= 0]
            for key, count in told:
                future = self._awaited.get(key)
                if future is not None and not future.done():
                    future.set_result(count is not None)
            if told:
                await self._client.command("DEL", *(key for key, _ in told))
