"""The application put together: the API, health, and the pages. It stands alone, or is mounted in another one.

    api.mount("/sagas", create_app(engine, app=app))

Needs the extra `dashboard`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

try:
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles
except ImportError as missing:
    raise ImportError(
        f"The dashboard needs {missing.name}. Install it: pip install 'sagasmith[dashboard]'"
    ) from missing

from orchestrator.web import api, bulk_api, bus, complete_api, definition_pages, doing, health, holding, pages
from orchestrator.web.access import Access
from orchestrator.web.bulk import BulkRunner
from orchestrator.web.database import Database
from orchestrator.web.problems import answer_problems
from orchestrator.web.rate import Rate
from orchestrator.web.settings import DashboardSettings
from orchestrator.web.shield import Shield
from orchestrator.web.web import Letters, Web

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from orchestrator.app import Orchestrator

STATIC: Final = Path(__file__).parent / "static"


def create_app(
    engine: AsyncEngine,
    *,
    schema: str | None = None,
    settings: DashboardSettings | None = None,
    app: Orchestrator | None = None,
    letters: Letters | None = None,
) -> FastAPI:
    """Make the application. The database is all it needs, and it must be migrated.

    Args:
        engine: of the sagas' database; not closed here.
        schema: of its tables, if they have one of their own.
        settings: from the environment, `.env` and `saga.toml` unless given.
        app: whose definitions tell what may be shown of state and messages, and how steps are drawn.
        letters: opens what keeps dead letters, and tells of queues, with the queues that are known.
    """
    settings = settings or DashboardSettings()
    database = Database(engine, schema)
    registry = None if app is None else app.registry
    rate = Rate(settings.complete_per_second)
    web = Web(database, Access(settings), settings, BulkRunner(database), rate, registry, letters)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        web.bulks.ensure()
        yield
        await web.bulks.stop()

    made = FastAPI(
        title="sagasmith",
        summary="Sagas read and steered.",
        version=version("sagasmith"),
        openapi_url="/api/openapi.json",
        docs_url=None,  # it would load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    made.state.web = web
    for router in (api.router, bulk_api.router, complete_api.router, holding.router, bus.router, health.router):
        made.include_router(router)
    for router in (pages.router, definition_pages.router, holding.pages, bus.pages, doing.router):
        made.include_router(router, include_in_schema=False)
    made.mount("/static", StaticFiles(directory=STATIC), name="static")
    answer_problems(made, pages.problem_page)
    made.add_middleware(Shield)
    return made
