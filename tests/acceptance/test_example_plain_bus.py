"""The example without sagas: in one process, and over RabbitMQ as processes of their own."""

from __future__ import annotations

import sqlite3

import pytest
from plain_bus.messages import Subscribe

from messaging import Bus, CommandRefused
from messaging.rabbitmq import RabbitTransport
from tests.support.broker import Broker
from tests.support.programs import Programs, eventually, until

ANN, BOB, GONE = "ann@example.org", "bob@example.com", "gone@example.org"


def mails_of(programs: Programs) -> list[str]:
    mails = programs.folder / "mails.txt"
    return mails.read_text().splitlines() if mails.is_file() else []


def mails_to(programs: Programs, who: str) -> list[str]:
    return [line.partition(": ")[2] for line in mails_of(programs) if line.startswith(f"to {who}: ")]


def test_in_one_process_subscribers_are_answered_welcomed_announced_and_sent_each_issue(programs: Programs) -> None:
    shop = programs.python("plain_bus.main")
    shop.type(ANN)
    shop.type(BOB)
    shop.type(ANN)
    shop.wait_until_it_says(f"refused: {ANN} is subscribed already")
    assert f"{ANN} is number 1" in shop.said and f"{BOB} is number 2" in shop.said
    shop.type("Spring")

    eventually(lambda: len(mails_of(programs)) == 6, because=lambda: f"{mails_of(programs)} {shop.said}")
    assert mails_to(programs, BOB) == ["Welcome, number 2", "A new issue: Spring"]
    assert sorted(mails_to(programs, "the editor")) == [f"{ANN} has joined", f"{BOB} has joined"]
    shop.end_of_input()
    assert shop.result() == 0


async def test_over_rabbitmq_mail_waits_for_a_killed_mailer_and_what_it_could_not_do_is_put_back(
    programs_on_rabbit: Programs, amqp_url: str, prefix: str, broker: Broker
) -> None:
    for queue in ("newsletter", "mailer", "archive", "asking"):
        broker.service_queue(f"{prefix}{queue}")
    for exchange in ("subscribers", "issues", "bounces"):
        broker.exchange(f"{prefix}{exchange}")
    programs = programs_on_rabbit
    programs.done(programs.python("plain_bus.prepare"))
    running = [programs.saga("run", f"plain_bus.{name}:{name}") for name in ("mailer", "newsletter", "archive")]
    for program in running:
        program.wait_until_it_says("Running")
    running[0].kill()

    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    async with Bus(transport, reply_queue="asking") as bus:
        numbers = [(await bus.request(Subscribe(address=who), to="newsletter")).number for who in (ANN, BOB, GONE)]
        assert numbers == [1, 2, 3]
        with pytest.raises(CommandRefused) as refused:
            await bus.request(Subscribe(address=ANN), to="newsletter")
        assert refused.value.failure.reason == f"{ANN} is subscribed already"
        assert mails_of(programs) == []
        programs.saga("run", "plain_bus.mailer:mailer")
        eventually(lambda: len(mails_of(programs)) == 5, because=programs.tails)
    await transport.close()
    eventually(lambda: subscribers(programs) == [ANN, BOB], because=programs.tails)  # the mailer told of what bounced

    mails = programs.folder / "mails.txt"
    mails.rename(programs.folder / "read.txt")
    mails.mkdir()  # the mailer cannot write, and gives up
    said = programs.done(programs.python("plain_bus.editor", "Spring"))
    assert "published; 2 of the readers are organisations" in said

    async def both_are_dead_letters() -> bool:
        return await broker.depth(f"{prefix}mailer.dead") == 2

    await until(both_are_dead_letters)
    mails.rmdir()
    programs.done(programs.saga("dlq", "replay", "--queue", "mailer", "--all"))

    eventually(lambda: mails_to(programs, ANN) == mails_to(programs, BOB) == ["A new issue: Spring"])


def subscribers(programs: Programs) -> list[str]:
    database = sqlite3.connect(programs.folder / "newsletter.db")
    found = [address for (address,) in database.execute("SELECT address FROM subscriber ORDER BY address")]
    database.close()
    return found
