"""An order of many lines: stock is reserved line by line, some at a time; then all of it is shipped at once."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel

from messaging import Command, Failure, Reply
from orchestrator import ForEach, ItemStep, Saga, Step


class Done(Reply):
    pass


class OutOfStock(Failure):
    left: int = 0


class ReserveStock(Command[Done], failures=(OutOfStock,)):
    order_id: str
    sku: str
    pieces: int


class ReleaseStock(Command[Done]):
    order_id: str
    sku: str


class ShipOrder(Command[Done]):
    order_id: str


class Line(BaseModel):
    sku: str
    pieces: int = 1


class Order(BaseModel):
    order_id: str
    lines: list[Line]
    missing: list[str] = []


class ReservingLine(ItemStep[Order, Line, Done]):
    participant = "warehouse"

    def command(self, state: Order, item: Line) -> ReserveStock:
        return ReserveStock(order_id=state.order_id, sku=item.sku, pieces=item.pieces)

    def on_failure(self, state: Order, item: Line, failure: Failure) -> None:
        state.missing.append(item.sku)

    def compensation(self, state: Order, item: Line) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id, sku=item.sku)


class ReservingLines(ForEach[Order, Line]):
    """The lines are frozen when it is reached; one that is refused turns the order back."""

    steps = (ReservingLine(),)
    concurrency = 20
    compensation_concurrency = 20

    def items(self, state: Order) -> Sequence[Line]:
        return state.lines

    def item_key(self, item: Line) -> str:
        return item.sku


class ShippingOrder(Step[Order, Done]):
    participant = "warehouse"
    pivot = True

    def command(self, state: Order) -> ShipOrder:
        return ShipOrder(order_id=state.order_id)


class ShipLines(Saga[Order]):
    steps = (ReservingLines(), ShippingOrder())
