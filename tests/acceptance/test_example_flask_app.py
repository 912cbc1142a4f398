"""The example on Flask: an order and its news are one transaction, and the warehouse answers."""

from __future__ import annotations

import sys

import httpx

from tests.support.broker import Broker
from tests.support.programs import Programs, eventually
from tests.support.services import free_ports


def served(programs: Programs) -> httpx.Client:
    (port,) = free_ports(1)
    app = ("flask", "--app", "flask_app.main", "run", "--port", str(port))
    programs.start(sys.executable, "-m", *app, name="flask").wait_until_it_says("Running on")
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90)


def test_in_one_process_an_order_is_told_to_the_warehouse_once_it_is_committed(programs: Programs) -> None:
    with served(programs) as shop:
        sells(shop, programs)


def test_over_rabbitmq_the_warehouse_is_a_process_of_its_own(
    programs_on_rabbit: Programs, broker: Broker, prefix: str
) -> None:
    broker.service_queue(f"{prefix}warehouse")
    with served(programs_on_rabbit) as shop:
        assert shop.get("/stock/lamp").status_code == 503
        programs_on_rabbit.saga("run", "flask_app.services:warehouse").wait_until_it_says("Running")
        sells(shop, programs_on_rabbit)


def sells(shop: httpx.Client, programs: Programs) -> None:
    assert shop.get("/stock/lamp").json() == {"article": "lamp", "pieces": 3}

    order = {"id": "1", "article": "lamp"}
    assert shop.post("/orders", json=order).status_code == 202
    assert shop.post("/orders", json=order).status_code == 409
    assert shop.post("/orders", json={"id": "2", "article": "lamp"}).status_code == 202

    eventually(lambda: shop.get("/stock/lamp").json()["pieces"] == 1, because=programs.tails)
