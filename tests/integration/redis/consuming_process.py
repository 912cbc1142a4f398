"""A consumer as a process, to be killed: writes what it takes and acknowledges to its output, a line each.

Its surroundings come as arguments: URL, prefix, queue, and how many to acknowledge before it only takes.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta

from messaging.redis import RedisTransport


async def main(url: str, prefix: str, queue: str, acknowledged: int) -> None:
    transport = RedisTransport(url, prefix=prefix, dead_after=timedelta(seconds=1))
    await transport.open()
    subscription = await transport.subscribe(queue, prefetch_messages=20)
    while True:
        for delivery in await subscription.take(5):
            if acknowledged > 0:
                await subscription.ack([delivery])
                acknowledged -= 1
                print("acknowledged", delivery.envelope.body.decode(), flush=True)
            else:
                print("taken", delivery.envelope.body.decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
