"""Both services in one process, with a prompt for addresses that subscribe: `python -m plain_bus.main`.

Messages stay in the process unless MESSAGING_BROKER_URL names a RabbitMQ; then each service may as well run by
itself, with `saga run plain_bus.services:mailer`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

from messaging import Bus, CommandRefused, ServiceRunner
from messaging.settings import MessagingSettings
from messaging.wiring import transport_from
from plain_bus.messages import Subscribe
from plain_bus.services import mailer, newsletter, prepare


async def main() -> None:
    await prepare()
    transport = transport_from(MessagingSettings())
    await transport.open()
    runners = [ServiceRunner(newsletter, transport), ServiceRunner(mailer, transport)]
    for runner in runners:
        await runner.start()
    async with Bus(transport) as bus:
        async for address in typed("Who subscribes? (Ctrl-D ends) "):
            try:
                reply = await bus.request(Subscribe(address=address), to="newsletter")
                print(f"{address} is number {reply.number}")
            except CommandRefused as refused:
                print(f"refused: {refused.failure.reason}")
    for runner in runners:
        await runner.stop()
    await transport.close()


async def typed(prompt: str) -> AsyncIterator[str]:
    """What is typed, line by line, while the services go on working."""
    while True:
        print(prompt, end="", flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        if address := line.strip():
            yield address


if __name__ == "__main__":
    asyncio.run(main())
