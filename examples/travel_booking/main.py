"""All of it in one process, with files and nothing else: `python -m travel_booking.main`."""

from __future__ import annotations

import asyncio

from orchestrator import Orchestrator, run
from travel_booking.sagas import BookTrip
from travel_booking.services import cars, flights, hotels, payments, prepare

app = Orchestrator(sagas=[BookTrip])

if __name__ == "__main__":
    asyncio.run(prepare())
    run(app, flights, hotels, cars, payments)
