"""All of it in one process, with files and nothing else: `python -m order_lines.main`."""

from __future__ import annotations

import asyncio

from orchestrator import Orchestrator, run
from order_lines.sagas import ShipLines
from order_lines.services import prepare, warehouse

app = Orchestrator(sagas=[ShipLines])

if __name__ == "__main__":
    asyncio.run(prepare())
    run(app, warehouse)
