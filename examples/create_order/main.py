"""The whole shop in one process: `python -m create_order.main`.

With nothing configured, sagas are in `saga.db`, the shop in `shop.db`, and messages stay in this process.
The same objects run as processes of their own over RabbitMQ and PostgreSQL; see README.md.
"""

from __future__ import annotations

import asyncio

from create_order.database import prepare
from create_order.sagas import CreateOrderSaga
from create_order.services import customers, orders, payments, warehouse
from orchestrator import Orchestrator, run

app = Orchestrator(sagas=[CreateOrderSaga])

if __name__ == "__main__":
    asyncio.run(prepare())
    run(app, orders, customers, warehouse, payments)
