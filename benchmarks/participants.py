"""The participants in a process of their own: `python -m benchmarks.participants BROKER PREFIX`."""

from __future__ import annotations

import asyncio
import signal
import sys

from pydantic import SecretStr

from benchmarks import three_steps
from messaging.settings import MessagingSettings
from orchestrator import running


async def main(broker: str, prefix: str) -> None:
    """Serve until SIGTERM; prints a line once ready."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    messaging = MessagingSettings(broker_url=SecretStr(broker), prefix=prefix)
    async with running(three_steps.stock, three_steps.cards, three_steps.shipping, messaging=messaging):
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
