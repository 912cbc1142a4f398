"""What runs in a process of its own beside a measured run: the participants, or a second orchestrator.

python -m benchmarks.beside participants|orchestrator BROKER PREFIX DATABASE [coalesced]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from pydantic import SecretStr

from benchmarks.ends import Ends
from benchmarks.workloads import SERVICES, orchestrator
from messaging.serving import collect_rarely
from messaging.settings import MessagingSettings
from orchestrator import running
from orchestrator.service import Queues
from orchestrator.settings import OrchestratorSettings


@asynccontextmanager
async def beside(
    role: str, options: argparse.Namespace, ended: Callable[[int], None] = lambda _: None
) -> AsyncGenerator[int]:
    """Run one for as long as the block lasts; gives its id, and tells how many sagas it has ended."""
    command = [sys.executable, "-m", "benchmarks.beside", role, options.broker, options.prefix, options.database]
    command += ["coalesced"] if options.coalesced else []
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    await process.stdout.readline()
    listening = asyncio.create_task(_listen(process.stdout, ended))
    try:
        yield process.pid
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 30)
        await listening


async def _listen(lines: asyncio.StreamReader, ended: Callable[[int], None]) -> None:
    async for line in lines:
        ended(int(line))


async def _tell(ends: Ends) -> None:
    told = 0
    while True:
        await ends.more.wait()
        ends.more.clear()
        print(ends.count - told, flush=True)
        told = ends.count


def bus_settings(broker: str, prefix: str, *, coalesced: bool) -> MessagingSettings:
    """Where messages go, and whether they go many at a time."""
    queues = (*(service.name for service in SERVICES), Queues("main").replies) if coalesced else ()
    return MessagingSettings(broker_url=SecretStr(broker), prefix=prefix, coalesce_to=queues)


async def main(role: str, broker: str, prefix: str, database: str, coalesced: str = "") -> None:
    """Serve until SIGTERM; prints a line once ready, then, as an orchestrator, how many sagas have ended."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    messaging = bus_settings(broker, prefix, coalesced=bool(coalesced))
    settings = OrchestratorSettings(database_url=SecretStr(database))
    app, ends = orchestrator(), Ends()
    app.use(ends)
    targets = SERVICES if role == "participants" else (app,)
    async with running(*targets, settings=settings, messaging=messaging):
        collect_rarely()
        print("ready", flush=True)
        telling = asyncio.create_task(_tell(ends))
        await stop.wait()
        telling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await telling


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
