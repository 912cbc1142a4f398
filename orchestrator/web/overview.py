"""How things stand, for the page and for the API."""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime

from orchestrator.web.surveys import Hour, Pace, Survey, ended_by_hour, pace_of, survey
from orchestrator.web.web import Web


async def overview_of(web: Web) -> Survey:
    """Read it; how sagas ended by the hour may be a minute old, how long they took five."""
    database = web.database

    def hours_now() -> Awaitable[list[Hour]]:
        return database.read(lambda c: ended_by_hour(c, now=datetime.now(UTC), schema=database.schema))

    def pace_now() -> Awaitable[Pace]:
        return database.read(lambda c: pace_of(c, now=datetime.now(UTC), schema=database.schema))

    hours, pace = await web.hours.get(hours_now), await web.pace.get(pace_now)
    return await database.read(lambda c: survey(c, hours, pace, schema=database.schema))
