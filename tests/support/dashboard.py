"""The dashboard on a real port, in a thread, with an engine beside it if there is something to run."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any

from messaging.settings import MessagingSettings
from orchestrator.app import Orchestrator, Target, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.connecting import ConnectionSettings, connect
from orchestrator.web import DashboardSettings, create_app
from orchestrator.web.serving import served
from orchestrator.web.web import Letters


@contextmanager
def dashboard_served(
    database_url: str, *targets: Target, letters: Letters | None = None, **settings: Any
) -> Iterator[str]:
    """Serve for as long as the block lasts; yields the address, without a slash at its end."""
    started, stop = threading.Event(), threading.Event()
    told: list[Any] = []

    async def work() -> None:
        async with AsyncExitStack() as stack:
            own = DashboardSettings(listen="127.0.0.1:0", **settings)
            app = next((target for target in targets if isinstance(target, Orchestrator)), None)
            if targets:
                sagas = OrchestratorSettings.model_validate({"database_url": database_url, "poll_seconds": 0.02})
                memory = MessagingSettings.model_validate({"broker_url": "memory://"})
                await stack.enter_async_context(running(*targets, settings=sagas, messaging=memory))
            engine = connect(database_url, ConnectionSettings())
            stack.push_async_callback(engine.dispose)
            made = create_app(engine, settings=own, app=app, letters=letters)
            told.append(await stack.enter_async_context(served(made, own)))
            started.set()
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - told to the test
            told.insert(0, error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="dashboard")
    thread.start()
    try:
        assert started.wait(30) and isinstance(told[0], str), told
        yield told[0].rstrip("/")
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive() and isinstance(told[0], str), told
