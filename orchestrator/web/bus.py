"""What waits between the database and the broker: a page, and the same over the API."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse

from orchestrator.sql.waiting import waiting
from orchestrator.waiting import Waiting
from orchestrator.web.access import Reader, reading
from orchestrator.web.api import router as sagas_router
from orchestrator.web.histograms import told
from orchestrator.web.problems import API
from orchestrator.web.queues import BrokerQueues, queues_now
from orchestrator.web.rendering import render
from orchestrator.web.web import Web, web_of

LATE: Final = timedelta(minutes=1)
"""What waits longer is told to be late."""

router = APIRouter(prefix=API, responses=sagas_router.responses, dependencies=[Depends(reading)], tags=["bus"])
pages = APIRouter()


@dataclass(frozen=True, slots=True)
class Bus:
    """What waits between the database and the broker."""

    waiting: Waiting
    broker: BrokerQueues


async def bus_of(web: Web) -> Bus:
    """The same as things stand now, and what the broker tells of the queues of participants and of our own."""
    database = web.database
    found = await database.read(lambda c: waiting(c, datetime.now(UTC), database.schema))
    known = () if web.registry is None else web.registry.participants

    def ask() -> Awaitable[BrokerQueues]:
        return queues_now(web.letters, [*known, *(one.participant for one in found.commands)])

    return Bus(found, await web.queues.get(ask))


@router.get("/bus")
async def bus(request: Request) -> Bus:
    """Tell what waits between the database and the broker: unsent commands, the outbox, queues, locks.

    Where the broker is away, `broker.note` says so, and the rest is told all the same.
    """
    return await bus_of(web_of(request))


@pages.get("/bus")
async def bus_page(request: Request, who: Reader) -> HTMLResponse:
    """What waits, for whoever asks why nothing moves."""
    web, late = web_of(request), LATE.total_seconds()
    has_app = web.registry is not None
    return render(request, who, "bus.html", bus=await bus_of(web), late=late, took=told, has_app=has_app)
