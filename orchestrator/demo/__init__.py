"""A small shop that runs in one process: what `saga demo` shows, and an example to read.

messages    what the services say to each other
saga        the order, step by step
ledgers     what each service keeps in its own tables
services    the participants
stories     customers who order, and how it ends for them
"""

from orchestrator.demo.saga import CreateOrderSaga, OrderState
from orchestrator.demo.services import customers, orders, payments, warehouse

__all__ = ["CreateOrderSaga", "OrderState", "customers", "orders", "payments", "warehouse"]
