"""For machines that look after this process: `/livez`, `/readyz`, and `/metrics` for Prometheus."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from orchestrator.sql.backlog import backlog
from orchestrator.sql.revisions import check_revisions
from orchestrator.web.access import Reader
from orchestrator.web.problems import Problem
from orchestrator.web.web import web_of

router = APIRouter(tags=["health"])


@router.get("/livez", response_class=PlainTextResponse)
async def live() -> str:
    """Say that this process answers."""
    return "ok\n"


@router.get("/readyz", response_class=PlainTextResponse)
async def ready(request: Request) -> str:
    """Say that the database answers and has the tables that are needed; else 503."""
    database = web_of(request).database
    await database.read(lambda c: check_revisions(c, schema=database.schema))
    return "ok\n"


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request, _: Reader) -> Response:
    """Tell what is counted in this process, and what waits in the database, as Prometheus reads it."""
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        from orchestrator.metrics import SagaMetrics
    except ImportError:
        text = "metrics need the Prometheus client. Install it: pip install 'sagasmith[metrics]'"
        raise Problem(HTTPStatus.NOT_IMPLEMENTED, "no-metrics", text) from None
    database = web_of(request).database
    SagaMetrics().waiting(await database.read(lambda c: backlog(c, schema=database.schema)))
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)
