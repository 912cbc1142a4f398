"""How old the oldest message of an outbox is, for whoever measures: what is told of a participant's own database.

A relay that runs sends what it can; that messages stay shows here alone, however they fail to leave.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Final, Protocol, runtime_checkable

from messaging.outbox import utc_now

logger = logging.getLogger(__name__)

EVERY: Final = timedelta(seconds=15)


class DatedRows(Protocol):
    """An outbox table that tells how old it is."""

    async def oldest(self) -> datetime | None:
        """When the oldest message was written that is still there; None where there is none."""
        ...


@runtime_checkable
class ShowsOutbox(Protocol):
    """What may be among middleware, and is shown how old an outbox is."""

    def show_outbox(self, name: str, oldest_seconds: float) -> None:
        """Take the age of its oldest message, 0 where there is none; must not raise."""
        ...


async def look(name: str, rows: DatedRows, shows: Iterable[ShowsOutbox], now: Callable[[], datetime] = utc_now) -> None:
    """Measure once; of a database that is away the last number stands."""
    try:
        oldest = await rows.oldest()
    except Exception as error:  # noqa: BLE001 - nothing rests on one look
        logger.warning("The outbox of %r could not be measured: %s. Trying again.", name, error)
        return
    age = 0.0 if oldest is None else max(0.0, (now() - oldest).total_seconds())
    for one in shows:
        one.show_outbox(name, age)


async def show_age(name: str, rows: DatedRows, among: Iterable[object]) -> None:
    """Measure every 15 seconds until cancelled; return at once if nothing among these wants to be shown."""
    shows = [one for one in among if isinstance(one, ShowsOutbox)]
    while shows:
        await look(name, rows, shows)
        await asyncio.sleep(EVERY.total_seconds())
