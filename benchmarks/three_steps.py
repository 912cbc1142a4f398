"""The saga that is measured: three commands one after the other, answered at once, each step persisted."""

from __future__ import annotations

from pydantic import BaseModel

from messaging import Command, Reply, Service
from orchestrator import Saga, Step


class Line(BaseModel):
    sku: str
    quantity: int


class Order(BaseModel):
    order: int
    customer: str
    lines: list[Line]
    references: dict[str, str] = {}


class Done(Reply):
    reference: str


class ReserveStock(Command[Done]):
    order: int
    customer: str


class ChargeCard(Command[Done]):
    order: int
    customer: str


class ShipOrder(Command[Done]):
    order: int
    customer: str


class ReservingStock(Step[Order, Done]):
    participant = "bench-stock"
    nothing_to_undo = True

    def command(self, state: Order) -> ReserveStock:
        return ReserveStock(order=state.order, customer=state.customer)

    def on_reply(self, state: Order, reply: Done) -> None:
        state.references["stock"] = reply.reference


class ChargingCard(Step[Order, Done]):
    participant = "bench-cards"
    nothing_to_undo = True

    def command(self, state: Order) -> ChargeCard:
        return ChargeCard(order=state.order, customer=state.customer)

    def on_reply(self, state: Order, reply: Done) -> None:
        state.references["card"] = reply.reference


class ShippingOrder(Step[Order, Done]):
    participant = "bench-shipping"
    nothing_to_undo = True

    def command(self, state: Order) -> ShipOrder:
        return ShipOrder(order=state.order, customer=state.customer)

    def on_reply(self, state: Order, reply: Done) -> None:
        state.references["parcel"] = reply.reference


class ThreeSteps(Saga[Order]):
    steps = (ReservingStock(), ChargingCard(), ShippingOrder())


# Echo participants: without sessions, so what is measured is the engine, the broker and its database.
stock = Service("bench-stock", max_in_flight=500)
cards = Service("bench-cards", max_in_flight=500)
shipping = Service("bench-shipping", max_in_flight=500)


@stock.handles(ReserveStock)
async def reserve_stock(command: ReserveStock) -> Done:
    return Done(reference=f"s-{command.order}")


@cards.handles(ChargeCard)
async def charge_card(command: ChargeCard) -> Done:
    return Done(reference=f"c-{command.order}")


@shipping.handles(ShipOrder)
async def ship_order(command: ShipOrder) -> Done:
    return Done(reference=f"p-{command.order}")


def order(number: int) -> Order:
    """The state a measured saga starts with."""
    lines = [Line(sku="abc", quantity=1), Line(sku="def", quantity=2)]
    return Order(order=number, customer="customer-42", lines=lines)
