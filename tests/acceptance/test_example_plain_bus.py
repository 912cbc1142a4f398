"""The example without sagas, over memory and over RabbitMQ."""

from __future__ import annotations

import sys

import pytest
from plain_bus.messages import Subscribe

from messaging import Bus, CommandRefused
from messaging.rabbitmq import RabbitTransport
from tests.support.broker import Broker
from tests.support.programs import Programs, eventually

ANN, BOB = "ann@example.org", "bob@example.org"


def mails_of(programs: Programs) -> list[str]:
    mails = programs.folder / "mails.txt"
    return sorted(mails.read_text().splitlines()) if mails.exists() else []


MAILS_TO_BOTH = [
    f"to {ANN}: Welcome, number 1",
    f"to {BOB}: Welcome, number 2",
    f"to the editor: {ANN} has joined",
    f"to the editor: {BOB} has joined",
]


def test_in_one_process_a_subscriber_is_answered_welcomed_and_announced(programs: Programs) -> None:
    shop = programs.python("plain_bus.main")
    shop.type(ANN)
    shop.type(BOB)
    shop.type(ANN)
    shop.wait_until_it_says(f"refused: {ANN} is subscribed already")
    assert f"{ANN} is number 1" in shop.said and f"{BOB} is number 2" in shop.said
    eventually(lambda: mails_of(programs) == MAILS_TO_BOTH, because=lambda: f"{mails_of(programs)}")

    shop.end_of_input()

    assert shop.result() == 0


async def test_over_rabbitmq_mail_waits_for_a_mailer_that_was_killed(
    programs_on_rabbit: Programs, amqp_url: str, prefix: str, broker: Broker
) -> None:
    for queue in ("newsletter", "mailer", "asking"):
        broker.service_queue(f"{prefix}{queue}")
    programs = programs_on_rabbit
    programs.done(programs.saga("migrate", "--only", "messaging", "--url", "sqlite:///newsletter.db"))
    programs.done(programs.start(*_prepare(), name="prepare"))
    newsletter = programs.saga("run", "plain_bus.services:newsletter")
    mailer = programs.saga("run", "plain_bus.services:mailer")
    newsletter.wait_until_it_says("Running")
    mailer.wait_until_it_says("Running")
    mailer.kill()

    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    async with Bus(transport, reply_queue="asking") as bus:
        assert (await bus.request(Subscribe(address=ANN), to="newsletter")).number == 1
        assert (await bus.request(Subscribe(address=BOB), to="newsletter")).number == 2
        with pytest.raises(CommandRefused) as refused:
            await bus.request(Subscribe(address=ANN), to="newsletter")
        assert refused.value.failure.reason == f"{ANN} is subscribed already"
    await transport.close()
    assert mails_of(programs) == []

    programs.saga("run", "plain_bus.services:mailer")
    eventually(lambda: mails_of(programs) == MAILS_TO_BOTH, because=programs.tails)


def _prepare() -> tuple[str, ...]:
    return sys.executable, "-c", "import asyncio; from plain_bus.services import prepare; asyncio.run(prepare())"
