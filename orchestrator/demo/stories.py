"""Customers who order something, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Final

from orchestrator.demo.ledgers import Customer, Product
from orchestrator.demo.saga import OrderState


@dataclass(frozen=True, slots=True)
class Story:
    """One order: who wants what, and what to expect."""

    customer: str
    product: str
    price_cents: int
    expectation: str

    def state(self, order_id: str) -> OrderState:
        """What its saga begins with."""
        return OrderState(
            order_id=order_id, customer=self.customer, product=self.product, amount_cents=self.price_cents
        )


STORIES: Final = (
    Story("Ann", "lamp", 4_900, "everything goes well"),
    Story("Bob", "sofa", 89_900, "more than his credit allows"),
    Story("Cleo", "kettle", 3_500, "a shelf jams at first"),
    Story("Dan", "chair", 12_000, "he never pays"),
    Story("Eve", "piano", 250_000, "no carrier takes it"),
)
STEPS: Final = ("CreatingOrder", "ReservingCredit", "ReservingStock", "AwaitingPayment", "ShippingOrder")


def stories(number: int) -> Iterator[Story]:
    """So many orders: each story once, then again from the first."""
    return islice(cycle(STORIES), number)


def customers(failing: str, number: int) -> list[Customer]:
    """Customers with credit for so many orders.

    Args:
        failing: the step that is to fail for everybody, where nothing else then does; or empty.
        number: of orders.
    """
    limit = 0 if failing == "ReservingCredit" else 250_000 * number
    limits = {} if failing else {"Bob": 10_000}
    late = set[str]() if failing else {"Dan"}
    if failing == "AwaitingPayment":
        late = {story.customer for story in STORIES}
    return [
        Customer(name=story.customer, free_cents=limits.get(story.customer, limit), pays=story.customer not in late)
        for story in STORIES
    ]


def products(failing: str, number: int) -> list[Product]:
    """Products for so many orders; see `customers`."""
    return [
        Product(
            name=story.product,
            on_shelf=0 if failing == "ReservingStock" else number,
            sold_here=failing != "CreatingOrder",
            carried=failing != "ShippingOrder" if failing else story.product != "piano",
            shelf_jams=not failing and story.product == "kettle",
        )
        for story in STORIES
    ]
