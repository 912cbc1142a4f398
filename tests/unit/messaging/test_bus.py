"""Sending, telling and asking."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from messaging import envelope as wire
from messaging.bus import Bus
from messaging.consumer import ServiceRunner
from messaging.context import Context
from messaging.envelope import Destination, Envelope, to_reply
from messaging.errors import (
    CommandRefused,
    DecodeError,
    NotConfirmed,
    PublishError,
    RequestTimeout,
    UnencodableMessage,
    Unroutable,
)
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.service import Service
from messaging.transport import Binding, Outgoing, QueueSpec, Subscription

SECOND = timedelta(seconds=1)


class Charged(Reply):
    charge: str = ""


class CardRefused(Failure):
    limit_cents: int = 0


class Charge(Command[Charged], failures=(CardRefused,)):
    note: str = ""


class Paid(Event):
    pass


@pytest.fixture
async def transport() -> AsyncIterator[MemoryTransport]:
    transport = MemoryTransport()
    await transport.open()
    yield transport
    await transport.close()


async def queue(transport: MemoryTransport, name: str, *bindings: Binding) -> Subscription:
    await transport.declare([QueueSpec(name, bindings)])
    return await transport.subscribe(name, prefetch_messages=10)


async def answer(
    transport: MemoryTransport, payments: Subscription, body: bytes, **headers: wire.HeaderValue
) -> Envelope:
    """Answer the next command as a participant without our kit does."""
    (delivery,) = await payments.take(1)
    command = delivery.envelope
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = Envelope("r-1", body, correlation_id=command.correlation_id, headers=named)
    await transport.publish([Outgoing(reply, to_reply(command.reply_to))], timeout=SECOND)
    await payments.ack([delivery])
    return command


async def test_a_command_reaches_its_queue_with_what_makes_it_one(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport, name="shop") as bus:
        message_id = await bus.send(Charge(), to="payments", headers={"tenant": "t1"})
        await bus.send(Charge(), to=Destination("payments"), idempotency_key="order-1")

    first, second = (delivery.envelope for delivery in await payments.take(2))
    assert first.type == "charge"
    assert first.message_id == first.correlation_id == first.text_header(wire.IDEMPOTENCY_KEY) == message_id
    assert (first.app_id, first.reply_to, first.headers["tenant"]) == ("shop", "", "t1")
    assert second.text_header(wire.IDEMPOTENCY_KEY) == "order-1"


async def test_an_event_reaches_who_subscribed_and_nobody_is_no_error(transport: MemoryTransport) -> None:
    async with Bus(transport) as bus:
        await bus.publish(Paid())
        mailer = await queue(transport, "mailer", Binding("paid"), Binding("all.#", "x"))
        await bus.publish(Paid())
        await bus.publish(Paid(), exchange="x", key="all.paid")

    assert [delivery.envelope.type for delivery in await mailer.take(9)] == ["paid", "paid"]


async def test_what_cannot_be_sent_raises_before_anything_is_sent(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        with pytest.raises(UnencodableMessage):
            await bus.send(Charge(note="\0"), to="payments")
        with pytest.raises(Unroutable, match="queue 'nobody'"):
            await bus.send(Charge(), to="nobody")

    assert await payments.backlog() == 0


@pytest.mark.parametrize("message", [Charge(), Event(), Paid, {"type": "paid"}], ids=repr)
async def test_what_is_no_event_of_a_class_of_its_own_is_not_published(
    message: Any, transport: MemoryTransport
) -> None:
    listener = await queue(transport, "listener", Binding("#"))
    async with Bus(transport) as bus:
        with pytest.raises(UnencodableMessage, match=r"of a subclass of messaging\.Event, and is of "):
            await bus.publish(message)
    assert await listener.backlog() == 0


@pytest.mark.parametrize("message", [Paid(), Command[Reply](), Charge, Charged(), None], ids=repr)
async def test_what_is_no_command_of_a_class_of_its_own_is_not_sent(message: Any, transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        with pytest.raises(UnencodableMessage, match=r"of a subclass of messaging\.Command, and is of "):
            await bus.send(message, to="payments")
    assert await payments.backlog() == 0


async def test_a_request_ends_in_time_also_when_the_broker_is_away_before_it_could_be_asked() -> None:
    class Away(MemoryTransport):
        async def declare(self, queues: Sequence[QueueSpec]) -> None:
            await asyncio.Event().wait()

    async with Bus(Away()) as bus:
        with pytest.raises(RequestTimeout):
            await asyncio.wait_for(bus.request(Charge(), to="payments", timeout=timedelta(milliseconds=10)), 30)


async def test_a_broker_that_does_not_confirm_is_told_to_the_sender() -> None:
    class Away(MemoryTransport):
        async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
            return [NotConfirmed(message.envelope.message_id, "", "away") for message in messages]

    with pytest.raises(NotConfirmed):
        await Bus(Away()).send(Charge(), to="payments")


async def test_a_request_is_answered_by_a_service(transport: MemoryTransport) -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged | CardRefused:
        return CardRefused(reason="no", limit_cents=5) if command.note == "no" else Charged(charge=command.note)

    runner = ServiceRunner(service, transport)
    await runner.start()
    async with Bus(transport) as bus:
        replies = await asyncio.gather(*(bus.request(Charge(note=str(n)), to="payments") for n in range(20)))
        with pytest.raises(CommandRefused) as caught:
            await bus.request(Charge(note="no"), to="payments")
    await runner.stop()

    assert [reply.charge for reply in replies] == [str(n) for n in range(20)]
    assert caught.value.failure == CardRefused(reason="no", limit_cents=5)


async def test_an_order_answered_retry_is_asked_again_with_its_key(transport: MemoryTransport) -> None:
    service, seen = Service("payments"), list[tuple[str, str]]()

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        seen.append((context.idempotency_key, context.message_id))
        if len(seen) == 1:
            raise OSError("provider away")
        return Charged()

    runner = ServiceRunner(service, transport)
    await runner.start()
    async with Bus(transport) as bus:
        await bus.request(Charge(), to="payments", timeout=10 * SECOND)
    await runner.stop()

    (key, message_id), (second_key, second_id) = seen
    assert key == second_key
    assert message_id != second_id


async def test_a_request_without_an_answer_ends_in_time(transport: MemoryTransport) -> None:
    await queue(transport, "payments")
    async with Bus(transport) as bus:
        with pytest.raises(RequestTimeout, match="may have been carried out"):
            await bus.request(Charge(), to="payments", timeout=timedelta(milliseconds=10))


async def test_a_reply_with_neither_outcome_nor_type_is_a_success(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        asking = asyncio.create_task(bus.request(Charge(), to="payments"))
        await answer(transport, payments, b'{"charge": "c1", "more": 1}')

        assert await asking == Charged(charge="c1")


async def test_accepted_is_no_answer_yet(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        asking = asyncio.create_task(bus.request(Charge(), to="payments"))
        command = await answer(transport, payments, b"{}", outcome="accepted", deadline_seconds=60)
        final = Envelope("r-2", b'{"charge": "late"}', correlation_id=command.correlation_id)
        await transport.publish([Outgoing(final, to_reply(command.reply_to))], timeout=SECOND)

        assert (await asking).charge == "late"


async def test_an_answer_that_is_none_is_told(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        for headers, body in (({"outcome": "maybe"}, b"{}"), ({}, b'{"charge": 7}')):
            asking = asyncio.create_task(bus.request(Charge(), to="payments"))
            await answer(transport, payments, body, **headers)
            with pytest.raises(DecodeError):
                await asking


async def test_an_unknown_error_code_is_read_as_the_general_failure(transport: MemoryTransport) -> None:
    payments = await queue(transport, "payments")
    async with Bus(transport) as bus:
        asking = asyncio.create_task(bus.request(Charge(), to="payments"))
        await answer(transport, payments, b"", outcome="failure", error_code="odd")

        with pytest.raises(CommandRefused) as caught:
            await asking
    assert type(caught.value.failure) is Failure
