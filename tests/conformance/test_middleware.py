"""Middleware and time limits mean the same on every transport and every database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Column, MetaData, String, Table, insert, select

from messaging import envelope as wire
from messaging.bus import Bus
from messaging.compose import compose_command
from messaging.consumer import ServiceRunner
from messaging.context import Context
from messaging.envelope import to_queue
from messaging.messages import Command, Event, Reply
from messaging.middleware import DeliverNext, HandleNext, Middleware, PublishNext, Received, Result, Settled
from messaging.retry import Retry
from messaging.service import Service
from messaging.transport import DEAD_LETTER_REASON, Delivery, Outgoing, dead_letter_queue
from tests.conformance.sql_backends import Sessions, sessions
from tests.conformance.transport_backends import TransportBackend, a_message, send, take
from tests.unit.messaging.support import running

__all__ = ["sessions"]

own = MetaData()
charges = Table("charges_within_middleware", own, Column("charge", String, primary_key=True))


class Charged(Reply):
    charge: str = ""


class Charge(Command[Charged]):
    charge: str


class Paid(Event):
    charge: str


class Stamps(Middleware):
    """Stamps what goes out, and keeps what it stood around."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.paid = asyncio.Event()

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        headers = {**outgoing.envelope.headers, "stamp": outgoing.envelope.type}
        await call_next(replace(outgoing, envelope=replace(outgoing.envelope, headers=headers)))

    async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
        self.seen.append(f"handling {received.envelope.type}, stamped {received.envelope.headers['stamp']}")
        return await call_next(received)

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        settled = await call_next(delivery)
        self.seen.append(f"{delivery.envelope.type}: {settled.outcome}")
        if delivery.envelope.type == "paid":
            self.paid.set()
        return settled


@pytest.mark.parametrize("backend", ["memory", "rabbitmq-fast", "redis-durable"], indirect=True)
async def test_commands_replies_and_events_pass_through_on_every_transport(backend: TransportBackend) -> None:
    payments, stamps = Service("payments"), Stamps()
    payments.use(stamps)

    @payments.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        context.publish(Paid(charge=command.charge))
        return Charged(charge=command.charge)

    @payments.subscribes(Paid)
    def paid(event: Paid) -> None:
        """A plain function, in a thread."""

    await backend.declare("payments", bindings=payments.queue_spec().bindings)
    runner = ServiceRunner(payments, backend.transport)
    await runner.start()
    async with Bus(backend.transport) as bus:
        bus.use(stamps)
        charged = await bus.request(Charge(charge="c1"), to="payments", timeout=timedelta(seconds=30))
        await asyncio.wait_for(stamps.paid.wait(), 30)
    await runner.stop()

    assert charged.charge == "c1"
    assert set(stamps.seen) == {
        "handling charge, stamped charge",
        "charge: success",
        "handling paid, stamped paid",
        "paid: success",
    }


class Reversed(Middleware):
    """Hands on a delivery with its body turned round."""

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        turned = replace(delivery.envelope, body=delivery.envelope.body[::-1])
        return await call_next(replace(delivery, envelope=turned))


@pytest.mark.parametrize("backend", ["memory", "rabbitmq-fast", "redis-durable"], indirect=True)
async def test_a_dead_letter_is_what_came_whatever_middleware_made_of_it(backend: TransportBackend) -> None:
    payments = Service("payments", retry=Retry(max_attempts=2, backoff=timedelta(0)))
    payments.use(Reversed())

    @payments.handles(Charge)
    async def charge(command: Charge) -> Charged:
        raise ValueError(command.charge)

    await backend.declare("payments")
    runner = ServiceRunner(payments, backend.transport)
    await runner.start()
    dead = await backend.transport.subscribe(dead_letter_queue("payments"), prefetch_messages=1)
    body = b'{"charge":"evil"}'[::-1]
    await send(backend.transport, a_message(body, type="charge"), to="payments")
    (kept,) = await take(dead, 1)
    await dead.ack([kept])
    await runner.stop()

    assert kept.envelope.body == body
    assert kept.envelope.text_header(DEAD_LETTER_REASON) == "handler-raised: ValueError: evil"


async def test_a_handler_that_takes_too_long_is_rolled_back_on_every_database(sessions: Sessions) -> None:
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(own.create_all)
    payments, slowly = Service("payments", sessions=sessions), [True]

    @payments.handles(Charge, timeout=timedelta(seconds=0.2))
    async def charge(command: Charge, context: Context) -> Charged:
        await context.session.execute(insert(charges).values(charge=command.charge))
        await context.publish(Paid(charge=command.charge))
        while slowly:  # cancelled in the middle of a statement, most likely
            await context.session.execute(select(charges))
        return Charged()

    async with running(payments) as asking:
        order = compose_command(
            Charge(charge="c1"), reply_to="replies", headers={wire.IDEMPOTENCY_KEY: "k", wire.ATTEMPT: 1}
        )
        await asking.send_raw(order, to_queue("payments"))
        too_long = await asking.reply()
        slowly.clear()
        while True:  # a slow machine may be too late again
            await asking.send_raw(order, to_queue("payments"))
            in_time = await asking.reply()
            if in_time.text_header(wire.OUTCOME) != "retry":
                break
    async with sessions() as session:
        written = list(await session.scalars(select(charges.c.charge)))

    assert (too_long.text_header(wire.OUTCOME), too_long.text_header(wire.ERROR_CODE)) == ("retry", "HandlerTimeout")
    assert in_time.text_header(wire.OUTCOME) == "success"
    assert written == ["c1"]
