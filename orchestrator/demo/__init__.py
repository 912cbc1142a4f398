"""A small shop that runs in one process: what `saga demo` shows, and an example to read.

messages    what the services say to each other
saga        the order, step by step
ledgers     what each service keeps in its own tables
services    the participants
stories     customers who order, and how it ends for them
"""

from orchestrator.app import Orchestrator
from orchestrator.demo.saga import CreateOrderSaga, OrderState
from orchestrator.demo.services import customers, orders, payments, warehouse

app = Orchestrator(sagas=[CreateOrderSaga])

__all__ = ["CreateOrderSaga", "OrderState", "app", "customers", "orders", "payments", "warehouse"]
