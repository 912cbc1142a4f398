"""The warehouse. Its functions are plain ones: each runs in a thread, with a session of its own."""

from __future__ import annotations

from sqlalchemy.orm import Session

from flask_app.database import Sessions, Shelf
from flask_app.messages import CountStock, InStock, OrderPlaced
from messaging import Context, Service

warehouse = Service("warehouse", sessions=Sessions)  # with the inbox: an order that is told twice is packed once


@warehouse.subscribes(OrderPlaced)
def pack(event: OrderPlaced, context: Context[Session]) -> None:
    context.session.get_one(Shelf, event.article, with_for_update=True).pieces -= 1


@warehouse.handles(CountStock)
def count_stock(command: CountStock, context: Context[Session]) -> InStock:
    shelf = context.session.get(Shelf, command.article)
    return InStock(pieces=shelf.pieces if shelf else 0)
