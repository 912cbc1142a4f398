"""The example on Django: rows and messages are one transaction of Django's, and a relay alone sends them."""

from __future__ import annotations

import sys

import httpx

from tests.support.broker import Broker
from tests.support.programs import Programs, eventually
from tests.support.services import free_ports

ANN, BOB = "ann@example.org", "bob@example.org"


def test_what_is_committed_is_mailed_in_order_and_what_is_not_is_not(
    programs_on_rabbit: Programs, broker: Broker, prefix: str
) -> None:
    programs = programs_on_rabbit
    broker.service_queue(f"{prefix}mailer")
    django = (sys.executable, "-m", "django")
    settings = {"DJANGO_SETTINGS_MODULE": "django_app.settings"}
    programs.done(programs.start(*django, "migrate", "--run-syncdb", name="syncdb", **settings))
    programs.done(programs.saga("migrate", "--only", "messaging", "--url", "sqlite:///shop.db"))
    (port,) = free_ports(1)
    server = programs.start(*django, "runserver", "--noreload", f"127.0.0.1:{port}", name="runserver", **settings)
    mailer = programs.saga("run", "django_app.services:mailer")
    mailer.wait_until_it_says("Running")
    server.wait_until_it_says("Starting")

    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=90) as shop:
        eventually(lambda: answers(shop), because=programs.tails)
        assert shop.post("/orders", json={"number": "1", "customer": ANN}).status_code == 202
        assert shop.post("/orders/1/payment").status_code == 202
        assert shop.post("/orders", json={"number": "1", "customer": BOB}).status_code == 409
        assert not (programs.folder / "mails.txt").exists(), "nobody relays yet"
        programs.saga("relay", "--database-url", "sqlite:///shop.db").wait_until_it_says("Relaying")
        assert shop.post("/orders", json={"number": "2", "customer": BOB}).status_code == 202

        mails = programs.folder / "mails.txt"
        eventually(lambda: mails.exists() and len(mails.read_text().splitlines()) == 3, because=programs.tails)
    told = mails.read_text().splitlines()
    assert [line for line in told if ANN in line] == [
        f"to {ANN}: thank you for order 1",
        f"to {ANN}: order 1 is on its way",
    ]
    assert f"to {BOB}: thank you for order 2" in told


def answers(shop: httpx.Client) -> bool:
    try:
        return shop.get("/").status_code == 404
    except httpx.ConnectError:
        return False
