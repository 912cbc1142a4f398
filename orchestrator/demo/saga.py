"""The order: created, credit and stock reserved together, paid, shipped. Whatever fails undoes what came before."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Failure, Retry
from orchestrator.definition import Saga
from orchestrator.demo.messages import (
    CreateOrder,
    CreditReserved,
    OrderCreated,
    OrderShipped,
    PaymentCaptured,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    ReserveCredit,
    ReserveStock,
    ShipOrder,
    StockReserved,
)
from orchestrator.steps import Parallel, Step, WaitForEvent


class OrderState(BaseModel):
    """What the saga remembers of an order."""

    order_id: str
    customer: str
    product: str
    amount_cents: int
    warehouse: str = ""
    tracking: str = ""
    refusal: str = ""


class CreatingOrder(Step[OrderState, OrderCreated]):
    """Undone by rejecting the order."""

    participant = "orders"

    def command(self, state: OrderState) -> CreateOrder:
        """Take the order."""
        return CreateOrder(
            order_id=state.order_id,
            customer=state.customer,
            product=state.product,
            amount_cents=state.amount_cents,
        )

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        """Keep why."""
        state.refusal = failure.reason

    def compensation(self, state: OrderState) -> RejectOrder:
        """Close it, and say why."""
        return RejectOrder(order_id=state.order_id, reason=state.refusal or "it was not paid")


class ReservingCredit(Step[OrderState, CreditReserved]):
    """Undone by releasing the credit."""

    participant = "customers"
    timeout = timedelta(seconds=30)

    def command(self, state: OrderState) -> ReserveCredit:
        """Hold the amount."""
        return ReserveCredit(order_id=state.order_id, customer=state.customer, amount_cents=state.amount_cents)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        """Keep why."""
        state.refusal = failure.reason

    def compensation(self, state: OrderState) -> ReleaseCredit:
        """By the order's id, which was known before: it works even if no reply ever came."""
        return ReleaseCredit(order_id=state.order_id)


class ReservingStock(Step[OrderState, StockReserved]):
    """Undone by releasing the stock. A fault that passes is tried again."""

    participant = "warehouse"
    retry = Retry(max_attempts=3, backoff=timedelta(milliseconds=400))

    def command(self, state: OrderState) -> ReserveStock:
        """Put the goods aside."""
        return ReserveStock(order_id=state.order_id, product=state.product)

    def on_reply(self, state: OrderState, reply: StockReserved) -> None:
        """Remember where they are."""
        state.warehouse = reply.warehouse

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        """Keep why."""
        state.refusal = failure.reason

    def compensation(self, state: OrderState) -> ReleaseStock:
        """Back on the shelf."""
        return ReleaseStock(order_id=state.order_id)


class AwaitingPayment(WaitForEvent[OrderState, PaymentCaptured]):
    """The customer has a moment to pay; a real shop gives a day."""

    timeout = timedelta(seconds=1.5)

    def awaited_key(self, state: OrderState) -> str:
        """This order's payment."""
        return state.order_id

    def event_key(self, event: PaymentCaptured) -> str:
        """Which order was paid."""
        return event.order_id


class ShippingOrder(Step[OrderState, OrderShipped]):
    """The pivot: a parcel that has left does not come back."""

    participant = "warehouse"
    pivot = True

    def command(self, state: OrderState) -> ShipOrder:
        """Hand it to a carrier."""
        return ShipOrder(order_id=state.order_id, product=state.product, warehouse=state.warehouse)

    def on_reply(self, state: OrderState, reply: OrderShipped) -> None:
        """Remember how to follow the parcel."""
        state.tracking = reply.tracking

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        """Keep why."""
        state.refusal = failure.reason


class CreateOrderSaga(Saga[OrderState]):
    """The whole flow, in one line of sight."""

    name = "create-order"
    steps = (
        CreatingOrder(),
        Parallel(ReservingCredit(), ReservingStock()),
        AwaitingPayment(),
        ShippingOrder(),
    )
