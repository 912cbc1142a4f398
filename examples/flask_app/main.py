"""Orders over HTTP: `flask --app flask_app.main run`.

An order and the news of it are one transaction. The bus sends what is in the outbox from this process, at once
after the commit; killed before that, it does so when it is started again.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask import Flask, request
from sqlalchemy.exc import IntegrityError

from flask_app.database import Order, Sessions, prepare
from flask_app.messages import CountStock, OrderPlaced
from flask_app.services import warehouse
from messaging import BlockingBus, RequestTimeout, Unroutable
from messaging.settings import MessagingSettings

# With nothing configured the warehouse lives in this process as well; else: saga run flask_app.services:warehouse
here = [warehouse] if MessagingSettings().in_memory else []
bus = BlockingBus(name="shop", outbox=Sessions, services=here)

prepare()
app = Flask(__name__)


@app.post("/orders")
def place_order() -> tuple[dict[str, Any], int]:
    new = request.get_json()
    try:
        with Sessions.begin() as session:
            session.add(Order(id=new["id"], article=new["article"]))
            session.flush()
            placed = OrderPlaced(order_id=new["id"], article=new["article"])
            bus.publish(placed, session=session, ordering_key=new["id"])
    except IntegrityError:
        return {"error": f"order {new['id']} is there already"}, 409
    return {"id": new["id"]}, 202


@app.get("/stock/<article>")
def stock(article: str) -> tuple[dict[str, Any], int]:
    try:
        answer = bus.request(CountStock(article=article), to="warehouse", timeout=timedelta(seconds=5))
    except (RequestTimeout, Unroutable):
        return {"error": "the warehouse does not answer"}, 503
    return {"article": article, "pieces": answer.pieces}, 200
