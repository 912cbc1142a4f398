"""The application served in this event loop, beside whatever else runs in it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Final

import uvicorn
from fastapi import FastAPI

from messaging.errors import SettingsError
from orchestrator.web.settings import DashboardSettings

logger = logging.getLogger(__name__)

_LONGEST_GOODBYE_SECONDS: Final = 2
_MOST_AT_ONCE: Final = 500
"""Requests; who comes then is told 503."""


class _Server(uvicorn.Server):
    """One that leaves signals to whoever runs it."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@asynccontextmanager
async def served(app: FastAPI, settings: DashboardSettings) -> AsyncGenerator[str]:
    """Answer for as long as the block lasts; yields the address.

    Raises:
        SettingsError: it cannot be listened there, or nothing would tell who may look.
    """
    settings.check()
    listening = _listening(settings)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        proxy_headers=False,  # whom to believe is said by DASHBOARD_PROXY_ADDRESSES
        server_header=False,
        limit_concurrency=_MOST_AT_ONCE,
        timeout_graceful_shutdown=_LONGEST_GOODBYE_SECONDS,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]), name="dashboard")
    try:
        yield f"http://{_shown(listening)}/"
    finally:
        app.state.web.streams.close()
        server.should_exit = True
        with suppress(asyncio.CancelledError):
            await task


def _listening(settings: DashboardSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=256)
    except OSError as error:
        raise SettingsError(
            f"DASHBOARD_LISTEN: {settings.listen} cannot be listened on: {error.strerror}. Say another HOST:PORT"
        ) from error


def _shown(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
