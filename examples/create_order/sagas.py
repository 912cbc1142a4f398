"""The order saga: what is done, in which order, and how each step is undone.

How long it waits can be set from the environment, in seconds, which is how you watch a timeout without
waiting for a day:

    SHOP_ANSWER_SECONDS    for the answer to one attempt of a command (30)
    SHOP_PAYMENT_SECONDS   for the customer to pay (a day)
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

from pydantic import BaseModel

from create_order.messages import (
    CancelPayment,
    CreateOrder,
    CreditReserved,
    OrderCompleted,
    OrderCreated,
    OrderRejected,
    OrderShipped,
    PaymentCaptured,
    PaymentRequested,
    ReceiptSent,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    RequestPayment,
    ReserveCredit,
    ReserveStock,
    SendReceipt,
    ShipOrder,
    StockReserved,
)
from messaging import Event, Failure, Reply
from orchestrator import Parallel, Retry, Saga, Step, WaitForEvent

ANSWER_WITHIN = timedelta(seconds=float(os.environ.get("SHOP_ANSWER_SECONDS", "30")))
PAY_WITHIN = timedelta(seconds=float(os.environ.get("SHOP_PAYMENT_SECONDS", "86400")))

R = TypeVar("R", bound=Reply)


class OrderState(BaseModel):
    order_id: UUID  # chosen by whoever starts the saga: every step can name the order
    customer: str
    sku: str
    quantity: int = 1
    amount_cents: int
    address: str = "1 Main Street"
    warehouse: str = ""
    payment: str = ""
    tracking: str = ""
    refusal: str = ""


class OrderStep(Step[OrderState, R]):
    """What all steps have in common: how long they wait, how often they try, and that a refusal is kept."""

    timeout = ANSWER_WITHIN
    retry = Retry(max_attempts=3, backoff=ANSWER_WITHIN / 10)
    compensation_timeout = ANSWER_WITHIN
    compensation_retry = Retry(max_attempts=10, backoff=ANSWER_WITHIN / 10)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.refusal = failure.reason


class CreatingOrder(OrderStep[OrderCreated]):
    participant = "orders"

    def command(self, state: OrderState) -> CreateOrder:
        return CreateOrder(order_id=state.order_id, customer=state.customer, amount_cents=state.amount_cents)

    def compensation(self, state: OrderState) -> RejectOrder:
        return RejectOrder(order_id=state.order_id, reason=state.refusal)


class ReservingCredit(OrderStep[CreditReserved]):
    participant = "customers"

    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id, customer=state.customer, amount_cents=state.amount_cents)

    def compensation(self, state: OrderState) -> ReleaseCredit:
        return ReleaseCredit(order_id=state.order_id)


class ReservingStock(OrderStep[StockReserved]):
    participant = "warehouse"

    def command(self, state: OrderState) -> ReserveStock:
        return ReserveStock(order_id=state.order_id, sku=state.sku, quantity=state.quantity)

    def on_reply(self, state: OrderState, reply: StockReserved) -> None:
        state.warehouse = reply.warehouse

    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class RequestingPayment(OrderStep[PaymentRequested]):
    participant = "payments"

    def command(self, state: OrderState) -> RequestPayment:
        return RequestPayment(order_id=state.order_id, amount_cents=state.amount_cents)

    def compensation(self, state: OrderState) -> CancelPayment:
        """Refuse the payment from now on, and give back what was paid."""
        return CancelPayment(order_id=state.order_id)


class AwaitingPayment(WaitForEvent[OrderState, PaymentCaptured]):
    timeout = PAY_WITHIN

    def awaited_key(self, state: OrderState) -> str:
        return str(state.order_id)

    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)

    def on_event(self, state: OrderState, event: PaymentCaptured) -> None:
        state.payment = event.payment

    def on_expired(self, state: OrderState) -> None:
        state.refusal = "not paid in time"


class ShippingOrder(OrderStep[OrderShipped]):
    """The pivot: a parcel that has left does not come back, so from here it only goes forward."""

    participant = "warehouse"
    pivot = True

    def command(self, state: OrderState) -> ShipOrder:
        return ShipOrder(order_id=state.order_id, warehouse=state.warehouse, address=state.address)

    def on_reply(self, state: OrderState, reply: OrderShipped) -> None:
        state.tracking = reply.tracking


class SendingReceipt(OrderStep[ReceiptSent]):
    """After the pivot: tried until it succeeds."""

    participant = "orders"
    retriable = True

    def command(self, state: OrderState) -> SendReceipt:
        return SendReceipt(order_id=state.order_id, tracking=state.tracking)


class CreateOrderSaga(Saga[OrderState]):
    name = "create-order"
    steps = (
        CreatingOrder(),
        Parallel(ReservingCredit(), ReservingStock()),
        RequestingPayment(),
        AwaitingPayment(),
        ShippingOrder(),
        SendingReceipt(),
    )

    def on_completed(self, state: OrderState) -> Iterable[Event]:
        yield OrderCompleted(order_id=state.order_id, tracking=state.tracking)

    def on_compensated(self, state: OrderState) -> Iterable[Event]:
        yield OrderRejected(order_id=state.order_id, reason=state.refusal)
