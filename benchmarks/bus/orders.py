"""The message that ours and raw aio-pika send: read and written by pydantic in both."""

from __future__ import annotations

from messaging import Command, Reply


class Booked(Reply):
    booking: str


class Book(Command[Booked]):
    order_id: str
    customer_id: str
    cents: int


def an_order(number: int) -> Book:
    """The order of this number."""
    return Book(order_id=f"order-{number:08}", customer_id="customer-42", cents=number)
