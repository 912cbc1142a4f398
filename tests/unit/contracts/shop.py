"""A small shop whose messages try what JSON Schema and AsyncAPI can say."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field

from messaging import Command, Event, Failure, Reply, Service
from orchestrator import Orchestrator, Saga, Step, WaitForEvent


class Card(BaseModel):
    """A card, of which four digits are known."""

    by: Literal["card"] = "card"
    last_digits: str = Field(pattern=r"\d{4}")


class Transfer(BaseModel):
    by: Literal["transfer"] = "transfer"
    account: str


class Charged(Reply):
    receipt: str


class CardRefused(Failure):
    limit_cents: int


class Charge(Command[Charged], name="payments.charge", failures=(CardRefused,)):
    """Take the money."""

    order_id: UUID
    discriminator: str = ""
    amount: Decimal = Field(gt=0, description="in the shop's currency")
    paid_by: Annotated[Card | Transfer, Field(discriminator="by")]
    point: tuple[float, float] | None = None


class Refunded(Reply): ...


class Refund(Command[Refunded]):
    order_id: UUID


class OrderPaid(Event, name="orders.paid"):
    order_id: UUID


class OrderClosed(Event):
    order_id: UUID


payments = Service("payments", publishes=[OrderPaid])
mailer = Service("mailer")


@payments.handles(Charge)
async def charge(command: Charge) -> Charged | CardRefused:
    return Charged(receipt="")


@payments.handles(Refund, exchange="orders", kind="direct")
async def refund(command: Refund) -> Refunded:
    return Refunded()


@mailer.subscribes(OrderPaid)
async def paid(event: OrderPaid) -> None: ...


@mailer.subscribes(OrderClosed, exchange="news", kind="fanout")
async def closed(event: OrderClosed) -> None: ...


class Order(BaseModel):
    order_id: UUID
    amount: Decimal


class Charging(Step[Order, Charged]):
    participant = "payments"

    def command(self, state: Order) -> Charge:
        return Charge(order_id=state.order_id, amount=state.amount, paid_by=Transfer(account="1"))

    def compensation(self, state: Order) -> Refund:
        return Refund(order_id=state.order_id)


class AwaitingPayment(WaitForEvent[Order, OrderPaid]):
    def event_key(self, event: OrderPaid) -> str:
        return str(event.order_id)

    def awaited_key(self, state: Order) -> str:
        return str(state.order_id)

    timeout = timedelta(hours=1)


class BuySaga(Saga[Order]):
    steps = (Charging(), AwaitingPayment())

    def on_completed(self, state: Order) -> Iterable[OrderClosed]:
        return [OrderClosed(order_id=state.order_id)]


app = Orchestrator(sagas=[BuySaga])
