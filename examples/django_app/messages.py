"""What the shop tells."""

from __future__ import annotations

from messaging import Event


class OrderPlaced(Event):
    number: str
    customer: str


class OrderPaid(Event):
    number: str
    customer: str
