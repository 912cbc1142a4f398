"""The page on dead letters: its programs and commands run as they stand, against RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta

import pytest
from click.testing import Result
from typer.testing import CliRunner

from messaging import BlockingBus
from messaging.dead_letters import replay
from messaging.envelope import Envelope, to_queue
from messaging.rabbitmq import RabbitTransport
from messaging.transport import Outgoing, QueueSpec
from orchestrator.cli import exits
from orchestrator.cli.program import app
from tests.support.broker import Broker
from tests.support.programs import ROOT, Programs, eventually

PAGE = (ROOT / "docs" / "dead-letters.md").read_text()
COMMANDS = [line.partition("#")[0].split()[1:] for line in re.findall(r"^saga dlq .*$", PAGE, re.MULTILINE)]


@pytest.fixture
def page(
    programs_on_rabbit: Programs, broker: Broker, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Programs]:
    """A folder with the page's programs, in which commands are typed."""
    broker.service_queue(f"{prefix}mailer")
    for name, program in re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL):
        (programs_on_rabbit.folder / name).write_text(program)
    monkeypatch.chdir(programs_on_rabbit.folder)
    monkeypatch.syspath_prepend(programs_on_rabbit.folder)
    monkeypatch.setenv("MESSAGING_BROKER_URL", broker.url)
    monkeypatch.setenv("MESSAGING_PREFIX", prefix)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", f"sqlite+aiosqlite:///{programs_on_rabbit.folder}/saga.db")
    monkeypatch.setenv("COLUMNS", "300")
    yield programs_on_rabbit
    sys.modules.pop("mailer", None)


def order_is_paid() -> None:
    from mailer import OrderPaid  # type: ignore[import-not-found] # pyright: ignore[reportMissingImports]

    with BlockingBus() as bus:
        bus.publish(OrderPaid(order_id="42"))


def typed(command: list[str], letter_id: str = "") -> str:
    """What a command of the page says on stdout."""
    return result_of(command, letter_id).stdout


def result_of(command: list[str], letter_id: str) -> Result:
    return CliRunner().invoke(app, [letter_id if word == "ID" else word for word in command])


def test_the_commands_and_the_program_of_the_page_put_right_what_they_say(page: Programs) -> None:
    listing, narrowed, showing, choosing, replaying, asking, purging = COMMANDS
    mailer = page.saga("run", "mailer:mailer")
    mailer.wait_until_it_says("Stop with Ctrl-C")
    order_is_paid()
    found = eventually(lambda: typed(narrowed), because=page.tails)
    assert typed(["migrate"]) and "queue mailer: 1" in typed(["doctor", "mailer:mailer"])

    assert re.search(r"mailer +\S+ +order-paid +\S.* 2 +handler-raised: FileNotFoundError", typed(listing))
    letter = json.loads(found)
    shown = typed(showing, letter["id"])
    for fact in ("exchange '", "key 'order-paid'", '{"order_id":"42"}', "address.txt", "in thank"):
        assert fact in shown
    assert typed(choosing) == f"would replay  mailer  {letter['id']}\n"

    address = page.folder / "address.txt"
    address.write_text("the shop")
    assert typed(replaying, letter["id"]) == f"replayed  mailer  {letter['id']}\n"
    mailer.wait_until_it_says("thanks for order 42 from the shop")
    assert (typed(listing), typed(asking)) == ("", "")
    assert result_of(purging, letter["id"]).exit_code == exits.NOT_FOUND

    address.unlink()
    order_is_paid()
    eventually(lambda: typed(narrowed), because=page.tails)
    address.write_text("the other shop")
    said = page.done(page.start(sys.executable, "revive.py"))
    assert re.match(r"handler-raised: FileNotFoundError: .* after 2 attempts\nreplayed: 1\n", said)
    mailer.wait_until_it_says("thanks for order 42 from the other shop")


def test_a_queue_that_is_not_there_is_told_at_once(page: Programs) -> None:
    result = result_of(["dlq", "list", "--queue", "nobody"], "")

    assert result.exit_code == exits.NOT_FOUND
    assert "no queue 't-" in result.stderr and "nobody.dead" in result.stderr


async def test_killed_between_replaying_and_removing_a_letter_is_in_both_places_with_one_message_id(
    programs_on_rabbit: Programs, broker: Broker, prefix: str
) -> None:
    broker.service_queue(f"{prefix}orders")
    transport = RabbitTransport(broker.url, prefix=prefix)
    await transport.open()
    await transport.declare([QueueSpec("orders")])
    dead = [Outgoing(Envelope(f"m-{number}", b"{}"), to_queue("orders.dead")) for number in range(3)]
    assert not any(await transport.publish(dead, timeout=timedelta(seconds=30)))

    killed = {"ORCHESTRATOR_FAILPOINT": "dead_letters.replayed"}
    doomed = programs_on_rabbit.saga("dlq", "replay", "--queue", "orders", **killed)
    assert await asyncio.to_thread(doomed.result) == -signal.SIGKILL
    outcomes = await replay(transport, "orders")

    assert [(outcome.id, outcome.error) for outcome in outcomes] == [("m-0", None), ("m-1", None), ("m-2", None)]
    arrived: list[str] = []
    subscription = await transport.subscribe("orders", prefetch_messages=10)
    async with asyncio.timeout(10):
        while len(set(arrived)) < 3 or len(arrived) < 4:
            taken = await subscription.take(10)
            await subscription.ack(taken)
            arrived += [delivery.envelope.message_id for delivery in taken]
    assert await transport.dead_letter_count("orders") == 0
    await transport.close()
