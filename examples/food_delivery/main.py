"""All of it in one process, with files and nothing else: `python -m food_delivery.main`."""

from __future__ import annotations

import asyncio

from food_delivery.sagas import DeliverMeal
from food_delivery.services import couriers, kitchen, payments, prepare
from orchestrator import Orchestrator, run

app = Orchestrator(sagas=[DeliverMeal])

if __name__ == "__main__":
    asyncio.run(prepare())
    run(app, payments, kitchen, couriers)
