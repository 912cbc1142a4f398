"""What the tests of this folder share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from messaging.redis import RedisTransport
from messaging.transport import Subscription
from tests.conformance.transport_backends import bodies

LATER = timedelta(seconds=30)


@asynccontextmanager
async def opened(url: str, prefix: str, **options: Any) -> AsyncIterator[RedisTransport]:
    transport = RedisTransport(url, prefix=prefix, **{"patience": timedelta(seconds=10), **options})
    await transport.open()
    try:
        yield transport
    finally:
        await asyncio.wait_for(transport.close(), 15)


async def handle_until(subscription: Subscription, wanted: set[bytes], *, within: float = 30) -> list[bytes]:
    """Take and acknowledge until all these bodies were seen; returns all that were."""
    seen: list[bytes] = []
    async with asyncio.timeout(within):
        while not wanted <= set(seen):
            deliveries = await subscription.take(500)
            seen += bodies(deliveries)
            await subscription.ack(deliveries)
    return seen
