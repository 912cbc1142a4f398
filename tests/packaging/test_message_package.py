"""A package of messages, released twice: two services in environments of their own have a release each, and talk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.installed import built, copy_of, install, own_environment
from tests.support.programs import Programs

PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "shop-messages"
version = "{version}"
"""
FIRST = """
from messaging import Command, Event, Reply

class Charged(Reply):
    receipt: str

class Charge(Command[Charged]):
    order: str
    euros: int

class OrderPaid(Event):
    order: str
"""
SECOND = """
from messaging import Command, Event, Reply

class Charged(Reply):
    receipt: str
    fee_cents: int = 0

class Charge(Command[Charged], version=2):
    order: str
    cents: int

    @classmethod
    def upcast(cls, body, version):
        return {"order": body["order"], "cents": body["euros"] * 100}

class OrderPaid(Event):
    order: str
    cents: int
"""
PAYMENTS = """
from messaging import Context, Service
from shop_messages import Charge, Charged, OrderPaid

payments = Service("payments")

@payments.handles(Charge)
async def charge(command: Charge, context: Context[None]) -> Charged:
    context.publish(OrderPaid(order=command.order, cents=command.cents))
    return Charged(receipt=f"{command.order}: {command.cents} cents", fee_cents=5)
"""
SHOP = """
from messaging import Service
from shop_messages import OrderPaid

shop = Service("shop")

@shop.subscribes(OrderPaid)
def paid(event: OrderPaid) -> None:
    print("paid:", event, flush=True)
"""
ASKS = """
from messaging import BlockingBus
from shop_messages import Charge

with BlockingBus() as bus:
    print("charged:", bus.request(Charge(order="42", euros=9), to="payments"))
"""


def release(version: str, messages: str, folder: Path) -> Path:
    """The wheel of the package of messages."""
    source = folder / f"messages-{version}"
    (source / "shop_messages").mkdir(parents=True)
    (source / "pyproject.toml").write_text(PROJECT.format(version=version))
    (source / "shop_messages" / "__init__.py").write_text(messages)
    return built(source, source)


@pytest.fixture
def older(installed: Path, tmp_path: Path) -> Path:
    """The programs of an environment with the wheel and the first release."""
    programs = copy_of(installed, tmp_path / "older")
    install(programs, "--no-deps", release("1.0.0", FIRST, tmp_path))
    return programs


@pytest.fixture
def newer(installed: Path, tmp_path: Path) -> Path:
    """The programs of an environment with the wheel and the second release."""
    programs = copy_of(installed, tmp_path / "newer")
    install(programs, "--no-deps", release("2.0.0", SECOND, tmp_path))
    return programs


@pytest.mark.torture  # fresh environments with releases of their own take a minute to install
@pytest.mark.timeout(240)
def test_services_with_different_releases_of_their_messages_understand_each_other(
    older: Path, newer: Path, amqp_url: str, prefix: str, broker: Broker
) -> None:
    for queue in ("payments", "shop"):
        broker.service_queue(prefix + queue)
    broker.exchange(f"{prefix}events")
    own = own_environment(MESSAGING_BROKER_URL=amqp_url, MESSAGING_PREFIX=prefix, PYTHONPATH="")
    with Programs(own) as programs:
        for name, program in {"payments": PAYMENTS, "shop": SHOP, "asks": ASKS}.items():
            (programs.folder / f"{name}.py").write_text(program)
        run = ("-m", "orchestrator", "run")
        programs.start(str(newer / "python"), *run, "payments:payments").wait_until_it_says("Running")
        shop = programs.start(str(older / "python"), *run, "shop:shop")
        shop.wait_until_it_says("Running")

        said = programs.done(programs.start(str(older / "python"), "asks.py"))

        assert said.strip() == "charged: receipt='42: 900 cents'"
        shop.wait_until_it_says("paid: order='42'")
