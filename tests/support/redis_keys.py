"""Keys of a test's own in a Redis that is shared, gone when the test ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis


@asynccontextmanager
async def keys_removed(url: str, prefix: str) -> AsyncIterator[Redis]:
    """A plain client; at the end of the block all keys with the prefix are removed."""
    async with Redis.from_url(url) as client:
        try:
            yield client
        finally:
            async for key in client.scan_iter(f"{prefix}*", count=1000):
                await client.delete(key)
