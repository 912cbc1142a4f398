"""Dead letters are found, put back and thrown away in the same way on every transport."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from messaging.coalescing import Coalescing
from messaging.dead_letters import DeadLetter, Selection, found, purge, replay
from messaging.envelope import Envelope, to_queue, to_subscribers
from messaging.errors import TransportError, UnknownQueue, Unroutable
from messaging.splitting import subscribed
from messaging.transport import Binding, Outgoing, Subscription, dead_letter_queue
from tests.conformance.transport_backends import (
    SOON,
    RabbitBackend,
    TransportBackend,
    a_message,
    eventually,
    send,
    take,
)


async def died(backend: TransportBackend, *messages: Envelope, reason: str = "no use", queue: str = "orders") -> None:
    """Have messages die in a queue, one after the other."""
    subscription = await backend.transport.subscribe(queue, prefetch_messages=10)
    for message in messages:
        await send(backend.transport, message, to=queue)
        (delivery,) = await take(subscription, 1)
        await subscription.dead_letter(delivery, reason, f"why {reason}")
    await subscription.close()


async def lie_there(backend: TransportBackend, count: int) -> Sequence[str]:
    """Put so many letters among the dead ones of `orders`, without a life before; returns their ids."""
    messages = [a_message(b"%d" % number, message_id=f"m-{number}") for number in range(count)]
    assert await send(backend.transport, *messages, to=dead_letter_queue("orders")) == [None] * count
    return [message.message_id for message in messages]


def ids(letters: Sequence[DeadLetter]) -> list[str]:
    return [letter.id for letter in letters]


async def test_a_dead_letter_is_found_with_all_that_is_known_of_it(backend: TransportBackend) -> None:
    await backend.declare("orders", bindings=[Binding("orders.*")])
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    message = a_message(b"\xff\0", type="orders.paid", correlation_id="c", headers={"saga-id": "s", "n": 1})
    before = datetime.now(UTC)
    await send(backend.transport, message, to=to_subscribers("orders.paid"))
    (delivery,) = await take(subscription, 1)
    await subscription.retry_later(delivery, timedelta(0))
    (delivery,) = await take(subscription, 1)
    await subscription.dead_letter(delivery, "handler-raised: KeyError", "Traceback ...")

    (letter,) = await found(backend.transport, "orders")

    assert letter.envelope == message
    assert (letter.id, letter.queue, letter.attempts, letter.problem) == (message.message_id, "orders", 2, "")
    assert (letter.reason, letter.detail) == ("handler-raised: KeyError", "Traceback ...")
    assert letter.died_at is not None and before <= letter.died_at <= datetime.now(UTC)
    assert letter.exchange.endswith("events") and letter.routing_key == "orders.paid"
    assert await backend.transport.dead_letter_count("orders") == 1


async def test_an_item_of_a_batch_is_found_and_replayed_as_a_message_of_its_own(backend: TransportBackend) -> None:
    await backend.declare("orders")
    sent = [a_message(b'{"n": %d}' % number, message_id=f"m-{number}", headers={"n": number}) for number in range(3)]
    joined = [Outgoing(message, to_queue("orders"), may_join=True) for message in sent]
    assert await Coalescing(backend.transport, {"orders"}).publish(joined, timeout=SOON) == [None] * 3
    subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
    first, useless, last = await take(subscription, 3)
    await subscription.dead_letter(useless, "no use", "why no use")
    await subscription.ack([first, last])

    (letter,) = await found(backend.transport, "orders")
    assert (letter.id, letter.envelope, letter.attempts) == ("m-1", sent[1], 1)
    (outcome,) = await replay(backend.transport, "orders")
    assert outcome.error is None
    (again,) = await take(subscription, 1)
    assert (again.envelope, again.attempt, again.part) == (sent[1], 1, None)
    await subscription.ack([again])
    await subscription.close()


async def test_looking_takes_nothing_and_changes_no_order_however_often(backend: TransportBackend) -> None:
    await backend.declare("orders")
    lying = await lie_there(backend, 5)
    for _ in range(25):  # more often than a queue's usual delivery limit
        assert ids(await found(backend.transport, "orders", limit=3)) == lying[:3]
    assert ids(await found(backend.transport, "orders")) == lying


async def test_hundreds_are_looked_at_in_order_and_what_stays_keeps_its_order(backend: TransportBackend) -> None:
    await backend.declare("orders")
    lying = await lie_there(backend, 260)
    assert ids(await found(backend.transport, "orders")) == lying
    taken = {one for number, one in enumerate(lying) if number % 3}

    outcomes = await purge(backend.transport, "orders", Selection(ids=taken))

    assert {outcome.id for outcome in outcomes if outcome.error is None} == taken
    assert ids(await found(backend.transport, "orders")) == [one for one in lying if one not in taken]


async def test_a_replayed_message_is_in_its_queue_as_it_was_and_is_a_dead_letter_no_more(
    backend: TransportBackend,
) -> None:
    await backend.declare("orders", bindings=[Binding("orders.*")])
    headers = {"idempotency-key": "k", "n": 1, "yes": True}
    message = a_message(b"\xff{}", type="orders.paid", reply_to="somewhere", headers=headers)
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    await send(backend.transport, message, to=to_subscribers("orders.paid"))
    for _ in range(2):
        (delivery,) = await take(subscription, 1)
        await subscription.retry_later(delivery, timedelta(0))
    (delivery,) = await take(subscription, 1)
    await subscription.dead_letter(delivery, "no use")

    (outcome,) = await replay(backend.transport, "orders")

    assert (outcome.id, outcome.queue, outcome.error) == (message.message_id, "orders", None)
    (delivery,) = await take(subscription, 1)
    assert (delivery.envelope, delivery.attempt) == (message, 1)
    assert await found(backend.transport, "orders") == []

    await subscription.dead_letter(delivery, "no use again")
    (letter,) = await found(backend.transport, "orders")
    assert letter.exchange.endswith("events") and (letter.routing_key, letter.attempts) == ("orders.paid", 1)


async def test_only_what_is_meant_is_replayed_and_not_more_than_is_asked_for(backend: TransportBackend) -> None:
    await backend.declare("orders")
    early, *late = [a_message(b"%d" % number, type="charge") for number in range(4)]
    await died(backend, early)
    between = datetime.now(UTC)
    await died(backend, *late)
    await died(backend, a_message(type="charge"), reason="other reason")
    await died(backend, a_message(type="refund"))

    meant = Selection(type="charge", reason="NO USE")
    assert ids(await found(backend.transport, "orders", Selection(died_before=between))) == [early.message_id]
    outcomes = await replay(backend.transport, "orders", meant, limit=3)

    assert [outcome.id for outcome in outcomes] == [early.message_id, late[0].message_id, late[1].message_id]
    left = await found(backend.transport, "orders")
    assert [(one.envelope.type, one.reason) for one in left] == [
        ("charge", "no use"),
        ("charge", "other reason"),
        ("refund", "no use"),
    ]


async def test_what_dies_again_while_others_are_replayed_is_left_for_the_next_time(backend: TransportBackend) -> None:
    await backend.declare("orders")
    lying = await lie_there(backend, 60)
    subscription = await backend.transport.subscribe("orders", prefetch_messages=50)
    dying = asyncio.create_task(everything_dies(subscription))

    outcomes = await replay(backend.transport, "orders")

    assert [outcome.id for outcome in outcomes if outcome.error is None] == lying

    async def all_dead() -> bool:
        return await backend.transport.dead_letter_count("orders") == len(lying)

    await eventually(all_dead, "all died again")
    dying.cancel()
    assert {letter.reason for letter in await found(backend.transport, "orders")} == {"no use again"}


async def everything_dies(subscription: Subscription) -> None:
    while True:
        for delivery in await subscription.take(10):
            await subscription.dead_letter(delivery, "no use again")


async def test_of_two_letters_with_one_message_id_a_run_replays_one(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await died(backend, a_message(b"1", message_id="same"), a_message(b"2", message_id="same"))

    first, second = await replay(backend.transport, "orders")

    assert first.error is None and "left for the next time" in str(second.error)
    assert [letter.envelope.body for letter in await found(backend.transport, "orders")] == [b"2"]


async def test_messages_without_an_id_are_told_apart_by_their_bodies(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await died(backend, Envelope("", b"first"), Envelope("", b"second"))
    first, second = await found(backend.transport, "orders")
    assert first.id != second.id

    await purge(backend.transport, "orders", Selection(ids={first.id}))

    assert [letter.envelope.body for letter in await found(backend.transport, "orders")] == [b"second"]


async def test_a_letter_whose_queue_is_gone_stays_and_says_why(backend: TransportBackend) -> None:
    await backend.declare("gone.dead")
    await send(backend.transport, a_message(message_id="m-1"), to="gone.dead")

    (outcome,) = await replay(backend.transport, "gone")

    assert isinstance(outcome.error, Unroutable)
    (letter,) = await found(backend.transport, "gone")
    assert (letter.id, letter.reason) == ("m-1", "unknown")


async def test_a_queue_without_dead_letters_is_told_at_once(backend: TransportBackend) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(UnknownQueue, match=r"nobody.*prefix"):
            await found(backend.transport, "nobody")
        assert await backend.transport.dead_letter_count("nobody") is None
    await backend.declare("empty")
    assert await found(backend.transport, "empty") == []
    assert await backend.transport.dead_letter_count("empty") == 0


async def test_what_the_broker_itself_put_aside_says_so_and_can_be_replayed(backend: TransportBackend) -> None:
    if isinstance(backend, RabbitBackend) and backend.is_classic:
        pytest.skip("classic queues count no redeliveries")
    await backend.declare("orders", delivery_limit=1)
    message = a_message(b"deadly", headers={"k": "v"})
    await send(backend.transport, message, to="orders")
    await comes_back(backend, 2)
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)

    async def dead() -> bool:
        return await backend.transport.dead_letter_count("orders") == 1

    await eventually(dead, "a dead letter")
    (letter,) = await found(backend.transport, "orders")
    assert (letter.reason, letter.envelope) == ("delivery-limit", message)
    assert letter.died_at is not None and datetime.now(UTC) - letter.died_at < timedelta(minutes=1)
    assert letter.routing_key == backend.transport.full_name("orders")

    assert [outcome.error for outcome in await replay(backend.transport, "orders")] == [None]
    (delivery,) = await take(subscription, 1)
    assert delivery.envelope == message
    await subscription.ack([delivery])


async def comes_back(backend: TransportBackend, times: int) -> None:
    for _ in range(times):
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        await take(subscription, 1)
        await backend.restarted()


async def test_a_closed_transport_has_no_dead_letters_to_show(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await backend.transport.close()
    if backend.transport.promises.delays:  # what memory holds is there as long as the process
        with pytest.raises(TransportError, match="closed"):
            await found(backend.transport, "orders")
