"""The page on the plain bus: its programs run as they stand, against RabbitMQ."""

from __future__ import annotations

import re
import sys

import pytest
from yarl import URL

from tests.support.broker import Broker
from tests.support.programs import ROOT, Programs

PAGE = (ROOT / "docs" / "bus.md").read_text()
TOLD = ["receipt of order 42", "refused: too much"]


def written(programs: Programs) -> None:
    """Write the page's programs into files of the names they say."""
    for name, program in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (programs.folder / name).write_text(program)


@pytest.mark.parametrize("asking", ["ask.py", "script.py"])
def test_the_service_answers_and_ends_when_it_is_told_to(
    programs_on_rabbit: Programs, broker: Broker, prefix: str, asking: str
) -> None:
    programs = programs_on_rabbit
    broker.service_queue(f"{prefix}payments")
    written(programs)
    payments = programs.start(sys.executable, "payments.py")
    payments.wait_until_it_says("Running service 'payments'")

    said = programs.done(programs.start(sys.executable, asking))

    assert said.splitlines() == TOLD
    payments.wait_until_it_says("order 42 is paid")
    payments.interrupt()
    assert payments.result() == 0


@pytest.mark.parametrize("broker_url", ["RabbitMQ", "memory://"])
def test_messages_go_where_the_page_says(
    programs_on_rabbit: Programs, broker: Broker, prefix: str, broker_url: str
) -> None:
    programs = programs_on_rabbit
    for service in ("tracking", "berlin", "printer"):
        broker.service_queue(f"{prefix}{service}")
    for exchange in ("parcels", "prices", "labels"):
        broker.exchange(f"{prefix}{exchange}")
    written(programs)
    elsewhere = {} if broker_url == "RabbitMQ" else {"MESSAGING_BROKER_URL": broker_url}

    said = programs.done(programs.start(sys.executable, "routing.py", **elsewhere))

    assert said.splitlines() == [
        "berlin: parcel 8 is here",
        "printer: label of parcel 8",
        "tracking: new price of stamp",
        "tracking: parcel 7 is in Europe",
        "tracking: parcel 8 is in Europe",
    ]


def test_what_the_till_wrote_is_sent_by_a_relay_alone(
    programs_on_rabbit: Programs, broker: Broker, prefix: str
) -> None:
    programs = programs_on_rabbit
    broker.service_queue(f"{prefix}payments")
    written(programs)
    payments = programs.start(sys.executable, "payments.py")
    payments.wait_until_it_says("Running service 'payments'")
    programs.done(programs.saga("migrate", "--only", "messaging", "--url", "sqlite:///till.db"))
    programs.done(programs.start(sys.executable, "till.py"))

    relay = programs.saga("relay", "--database-url", "sqlite:///till.db")

    payments.wait_until_it_says("order 42 is paid")
    relay.interrupt()
    assert relay.result() == 0
    assert "Relaying from sqlite:///till.db to amqp://" in relay.said


def test_a_handler_that_is_a_class_handles(programs: Programs) -> None:
    written(programs)
    (programs.folder / "show.py").write_text(SHOWS)

    said = programs.done(programs.start(sys.executable, "show.py"))

    assert said.splitlines() == ["screen: hello", "characters=5"]


def test_a_forked_worker_has_a_bus_of_its_own_and_leaves_its_parents_alone(
    programs_on_rabbit: Programs, broker: Broker, prefix: str
) -> None:
    programs = programs_on_rabbit
    broker.service_queue(f"{prefix}payments")
    written(programs)
    (programs.folder / "forks.py").write_text(FORKS)
    programs.start(sys.executable, "payments.py").wait_until_it_says("Running service 'payments'")

    said = programs.done(programs.start(sys.executable, "forks.py"))

    assert said.splitlines() == [
        "parent: receipt of order 1",
        "child: receipt of order 2",
        "parent: receipt of order 3",
    ]


@pytest.mark.parametrize("broker_url", ["RabbitMQ", "memory://"])
def test_a_bus_that_runs_serves_and_sends_until_it_is_told_to_stop_and_finishes_what_is_under_way(
    programs_on_rabbit: Programs, broker: Broker, prefix: str, broker_url: str
) -> None:
    programs = programs_on_rabbit
    broker.service_queue(f"{prefix}bakery")
    (programs.folder / "runs.py").write_text(RUNS)
    elsewhere = {} if broker_url == "RabbitMQ" else {"MESSAGING_BROKER_URL": broker_url}
    bakery = programs.start(sys.executable, "runs.py", **elsewhere)

    bakery.wait_until_it_says("baking")
    bakery.interrupt()

    assert bakery.result() == 0
    assert bakery.said.index("baking") < bakery.said.index("Stopping") < bakery.said.index("baked")
    assert bakery.said.endswith("baked\nclosed\n")


def test_a_bus_whose_broker_refuses_it_does_not_run(programs: Programs, amqp_url: str) -> None:
    (programs.folder / "runs.py").write_text(RUNS)
    refused = str(URL(amqp_url).with_path("/no-such-host"))
    bakery = programs.start(sys.executable, "runs.py", MESSAGING_BROKER_URL=refused)

    assert bakery.result() == 1
    assert "Check user, password and virtual host." in bakery.said


SHOWS = """
from messaging import BlockingBus
from messaging.memory import MemoryTransport
from screen import ShowMessage, screen

with BlockingBus(MemoryTransport, services=[screen]) as bus:
    print(bus.request(ShowMessage(text="hello"), to="screen"))
"""
FORKS = """
import os
from messaging import BlockingBus
from payments import Charge

bus = BlockingBus()

def charge(who, order_id):
    print(f"{who}: {bus.request(Charge(order_id=order_id, cents=1), to='payments').receipt}", flush=True)

charge("parent", "1")
child = os.fork()
if child == 0:
    charge("child", "2")
    bus.close()
    raise SystemExit
assert os.waitpid(child, 0)[1] == 0
charge("parent", "3")
"""
RUNS = """
import threading
from messaging import BlockingBus, Command, Reply, Service

class Bake(Command[Reply]):
    pass

bakery = Service("bakery")
stopping = threading.Event()

@bakery.handles(Bake)
def bake(command: Bake) -> Reply:
    print("baking", flush=True)
    stopping.wait(10)
    print("baked", flush=True)
    return Reply()

class Bakery(BlockingBus):
    def close(self):
        stopping.set()
        super().close()

bus = Bakery(services=[bakery])
threading.Timer(0.1, lambda: bus.send(Bake(), to="bakery")).start()
bus.run()
print("closed", flush=True)
"""
