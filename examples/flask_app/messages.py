"""What the shop and the warehouse say to each other."""

from __future__ import annotations

from messaging import Command, Event, Reply


class OrderPlaced(Event):
    order_id: str
    article: str


class InStock(Reply):
    pieces: int


class CountStock(Command[InStock]):
    article: str
