"""All three services in one process, with a prompt for addresses that subscribe: `python -m plain_bus.main`.

Messages stay in the process unless MESSAGING_BROKER_URL names a broker; then each service may as well run by
itself, with `saga run plain_bus.mailer:mailer`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from messaging import Bus, CommandRefused
from messaging.serving import opened, serving
from plain_bus import archive, newsletter
from plain_bus.mailer import mailer
from plain_bus.messages import IssuePublished, Subscribe


async def main() -> None:
    await newsletter.prepare()
    archive.prepare()
    services = [newsletter.newsletter, mailer, archive.archive]
    async with opened(None) as transport, serving(services, transport), Bus(transport) as bus:
        async for line in typed("Who subscribes? Or the title of a new issue. (Ctrl-D ends) "):
            await (subscribe(bus, line) if "@" in line else publish(bus, line))


async def subscribe(bus: Bus, address: str) -> None:
    try:
        reply = await bus.request(Subscribe(address=address), to="newsletter")
        print(f"{address} is number {reply.number}")
    except CommandRefused as refused:
        print(f"refused: {refused.failure.reason}")


async def publish(bus: Bus, title: str) -> None:
    await bus.publish(IssuePublished(title=title), exchange="issues", kind="fanout")


async def typed(prompt: str) -> AsyncIterator[str]:
    """What is typed, line by line, while the services go on working."""
    while True:
        print(prompt, end="", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        if line := line.strip():
            yield line


if __name__ == "__main__":
    asyncio.run(main())
