"""The dashboard's application over a database of the test's own, asked without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from messaging.settings import MessagingSettings
from orchestrator import SagaClient
from orchestrator.app import Orchestrator, running
from orchestrator.instance import BlockedReason, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql import SqlStore
from orchestrator.web import DashboardSettings, create_app
from orchestrator.web.web import Letters
from tests.conformance.stores import command, started
from tests.support.databases import new_sqlite
from tests.unit.cli import walls

HERE = ("127.0.0.1", 50000)
TOKEN = "operators-have-this-token"
READ_TOKEN = "readers-have-this-token"


@dataclass
class Site:
    """An application, somebody who asks it, and the database behind."""

    http: httpx.AsyncClient
    store: SqlStore
    client: SagaClient

    async def csrf(self) -> dict[str, str]:
        """The header that a page of ours would send."""
        return {"x-csrf-token": (await self.http.get("/api/session")).json()["csrf_token"]}

    async def blocked(self, text: str = "no answer", **changes: Any) -> UUID:
        """A saga that is blocked at its first step, as it would be stored."""
        record = command(status=StepStatus.UNKNOWN, send_after=None, error_code="timeout", error_text=text)
        return (await self.saga(record, **{**BLOCKED, **changes})).id

    async def saga(self, *records: StepRecord, **changes: Any) -> SagaInstance:
        """A saga as it would be stored."""
        return await started(self.store, *records, **changes)


BLOCKED: dict[str, Any] = {
    "status": SagaStatus.BLOCKED,
    "blocked_reason": BlockedReason.RETRIES_EXHAUSTED,
    "blocked_step": StepKey("ReservingCredit").label,
    "blocked_from": SagaStatus.RUNNING,
    "wake_at": None,
}


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A migrated SQLite file."""
    monkeypatch.chdir(tmp_path)
    url = f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}"
    new_sqlite(url)
    return url


@asynccontextmanager
async def opened(
    url: str,
    *,
    app: Orchestrator | None = None,
    letters: Letters | None = None,
    peer: tuple[str, int] = HERE,
    name: str = "localhost",
    **settings: Any,
) -> AsyncIterator[Site]:
    """A site with these settings, asked from there by this name."""
    async with AsyncExitStack() as stack:
        store = SqlStore(url, runs_engine=False)
        await store.open()
        stack.push_async_callback(store.close)
        made = create_app(store.engine, settings=DashboardSettings(**settings), app=app, letters=letters)
        stack.push_async_callback(made.state.web.bulks.stop)
        transport = httpx.ASGITransport(made, raise_app_exceptions=False, client=peer)
        http = await stack.enter_async_context(httpx.AsyncClient(transport=transport, base_url=f"http://{name}"))
        yield Site(http, store, SagaClient(store.engine))


@pytest.fixture
async def site(url: str) -> AsyncIterator[Site]:
    """A site where nothing is set up, asked from this machine."""
    async with opened(url) as site:
        yield site


@pytest.fixture
async def walled(url: str) -> AsyncIterator[Site]:
    """A site beside which an engine and the painter work."""
    walls.ladder_is_back.clear()
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    async with (
        running(walls.app, walls.painter, settings=settings, messaging=MessagingSettings()),
        opened(url, app=walls.app) as site,
    ):
        yield site
