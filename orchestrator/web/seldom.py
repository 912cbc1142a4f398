"""What is dear to read, read once in a while for all who ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

A_WHILE_SECONDS: Final = 60.0


class Seldom(Generic[T]):
    """A value that may be so old."""

    def __init__(self, seconds: float = A_WHILE_SECONDS) -> None:
        self._seconds, self._lock = seconds, asyncio.Lock()
        self._kept: tuple[float, T] | None = None

    async def get(self, read: Callable[[], Awaitable[T]]) -> T:
        """The value, read anew if it is too old; of several who ask at once one reads."""
        async with self._lock:
            now = time.monotonic()
            if self._kept is None or now - self._kept[0] > self._seconds:
                self._kept = now, await read()
            return self._kept[1]
