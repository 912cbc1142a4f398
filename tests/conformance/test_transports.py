"""What every transport keeps. A transport of one's own passes when it is added to `backend`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from messaging.envelope import Destination, Envelope, to_queue, to_reply, to_subscribers
from messaging.errors import MessageTooLarge, NotConfirmed, TopologyMismatch, TransportError, Unroutable
from messaging.transport import (
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_TIME,
    Binding,
    Outgoing,
    dead_letter_queue,
)
from tests.conformance.transport_backends import (
    SOON,
    MemoryBackend,
    RabbitBackend,
    RedisBackend,
    TransportBackend,
    a_message,
    bodies,
    eventually,
    send,
    take,
)
from tests.support.broker import Broker
from tests.support.redis_keys import keys_removed


@pytest.fixture(
    params=["memory", "rabbitmq-fast", "rabbitmq-plain", "rabbitmq-classic", "redis-durable", "redis-forgetful"]
)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[TransportBackend]:
    if request.param == "memory":
        backend: TransportBackend = MemoryBackend()
        await backend.transport.open()
        yield backend
        await backend.close()
        return
    if request.param.startswith("redis"):
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("prefix")
        backend = RedisBackend(url, prefix, survives_restart=request.param == "redis-durable")
        async with keys_removed(url, prefix):
            await backend.transport.open()
            try:
                yield backend
            finally:
                await backend.close()
        return
    url, prefix = request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix")
    options = {"fast": request.param != "rabbitmq-plain"}
    if request.param == "rabbitmq-classic":
        options["queue_type"] = "classic"
    async with Broker(url) as broker:
        backend = RabbitBackend(url, prefix, broker, **options)
        await backend.transport.open()
        try:
            yield backend
        finally:
            await backend.close()


async def test_what_is_published_is_delivered_in_order_and_gone_once_acknowledged(
    backend: TransportBackend,
) -> None:
    await backend.declare("orders")
    sent = [a_message(b"%d" % number) for number in range(5)]
    assert await send(backend.transport, *sent, to="orders") == [None] * 5

    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    taken = await take(subscription, 5)
    assert [delivery.envelope.message_id for delivery in taken] == [message.message_id for message in sent]
    assert {delivery.queue for delivery in taken} == {"orders"}
    assert subscription.queue == backend.transport.full_name("orders")
    await subscription.ack(taken)

    await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    await send(backend.transport, a_message(b"next"), to="orders")
    assert bodies(await take(subscription, 1)) == [b"next"]


async def test_declaring_twice_is_declaring_once(backend: TransportBackend) -> None:
    binding = Binding("orders.paid")
    await backend.declare("orders", bindings=[binding])
    await backend.declare("orders", bindings=[binding])
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    await send(backend.transport, a_message(b"once"), to=to_subscribers("orders.paid"))
    await send(backend.transport, a_message(b"end"), to="orders")
    assert bodies(await take(subscription, 2)) == [b"once", b"end"]


async def test_a_queue_that_has_another_owner_is_not_declared(backend: TransportBackend) -> None:
    await backend.declare("replies", owner="installation-1")
    await backend.declare("replies", owner="installation-1")
    with pytest.raises(TopologyMismatch, match=r"replies.*installation-2"):
        await backend.declare("replies", owner="installation-2")


async def test_every_property_makes_the_round_trip(backend: TransportBackend) -> None:
    await backend.declare("orders")
    sent = Envelope(
        message_id="0198c0de-0000-7000-8000-000000000001",
        body='{"größe": "ß"}'.encode(),
        type="orders.paid",
        correlation_id="correlation-ü",
        reply_to=backend.transport.full_name("replies"),
        content_type="application/vnd.sagasmith+json",
        timestamp=datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC),
        app_id="shop",
        headers={
            "idempotency-key": "k-1",
            "schema-version": 3,
            "big": 2**40,
            "negative": -7,
            "ratio": 0.1,
            "yes": True,
            "no": False,
            "nothing": None,
            "empty": "",
            "text": "naïve",
        },
    )
    await send(backend.transport, sent, to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    (delivery,) = await take(subscription, 1)
    assert delivery.envelope == sent
    assert (delivery.attempt, delivery.redelivered, delivery.problem) == (1, False, "")


async def test_a_bare_message_stays_bare(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, Envelope("", b"", content_type=""), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    (delivery,) = await take(subscription, 1)
    envelope = replace(delivery.envelope, message_id="")
    assert envelope == Envelope("", b"", content_type="")


async def test_each_message_of_a_batch_has_its_own_outcome(backend: TransportBackend) -> None:
    if not backend.transport.promises.detects_unroutable:
        pytest.skip("it does not detect what is unroutable")
    await backend.declare("here", "there")
    nowhere = to_queue("nowhere")
    destinations = [to_queue("here"), nowhere, to_queue("there"), nowhere, to_queue("here")]
    batch = [Outgoing(a_message(message_id=f"m-{n}"), d) for n, d in enumerate(destinations)]

    outcomes = await backend.transport.publish(batch, timeout=SOON)

    assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), Unroutable, type(None)]
    assert [outcome.message_id for outcome in outcomes if outcome] == ["m-1", "m-3"]
    assert await backend.transport.publish([], timeout=SOON) == []


async def test_a_batch_of_five_hundred_arrives_in_order(backend: TransportBackend) -> None:
    await backend.declare("orders")
    sent = [a_message(b"%d" % number, type="charge", headers={"saga-id": str(number)}) for number in range(500)]
    assert await send(backend.transport, *sent, to="orders") == [None] * 500
    subscription = await backend.transport.subscribe("orders", prefetch_messages=200)
    taken: list[bytes] = []
    while len(taken) < 500:
        deliveries = await take(subscription, 1) + subscription.take_nowait(200)
        await subscription.ack(deliveries)
        taken += bodies(deliveries)
    assert taken == [message.body for message in sent]


async def test_two_messages_with_one_id_in_a_batch_both_arrive(backend: TransportBackend) -> None:
    await backend.declare("orders")
    sent = [a_message(b"first", message_id="same"), a_message(b"second", message_id="same")]
    assert await send(backend.transport, *sent, to="orders") == [None, None]
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    assert bodies(await take(subscription, 2)) == [b"first", b"second"]


async def test_copies_of_one_message_to_several_places_are_told_apart(backend: TransportBackend) -> None:
    if not backend.transport.promises.detects_unroutable:
        pytest.skip("it does not detect what is unroutable")
    await backend.declare("orders")
    message = a_message(message_id="same")
    batch = [Outgoing(message, to_queue(name)) for name in ("orders", "nowhere", "orders", "nowhere")]
    outcomes = await backend.transport.publish(batch, timeout=SOON)
    assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), Unroutable]


async def test_publishers_at_the_same_time_do_not_mix_their_outcomes(backend: TransportBackend) -> None:
    if not backend.transport.promises.detects_unroutable:
        pytest.skip("it does not detect what is unroutable")
    await backend.declare("orders")

    async def publisher(number: int) -> list[bool]:
        batch = [Outgoing(a_message(), to_queue("orders" if (number + n) % 3 else "nowhere")) for n in range(20)]
        outcomes = await backend.transport.publish(batch, timeout=SOON)
        return [(number + n) % 3 == 0 for n in range(20)] == [isinstance(outcome, Unroutable) for outcome in outcomes]

    assert all(await asyncio.gather(*(publisher(number) for number in range(10))))


async def test_a_body_over_the_limit_is_refused_and_its_neighbours_are_not(backend: TransportBackend) -> None:
    await backend.declare("orders")
    large = a_message(b"x" * ((1 << 20) + 1))
    first, second, third = await send(backend.transport, a_message(), large, a_message(), to="orders")
    assert first is None
    assert isinstance(second, MessageTooLarge)
    assert third is None


async def test_a_batch_may_hold_events_and_commands(backend: TransportBackend) -> None:
    await backend.declare("orders", bindings=[Binding("paid")])
    await backend.transport.publish([], timeout=SOON)
    events, commands = to_subscribers("paid"), to_queue("orders")
    batch = [Outgoing(a_message(b"%d" % n), events if n % 2 else commands) for n in range(6)]
    assert await backend.transport.publish(batch, timeout=SOON) == [None] * 6
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    assert sorted(bodies(await take(subscription, 6))) == [b"%d" % n for n in range(6)]


async def test_a_body_of_a_megabyte_arrives_whole_among_small_ones(backend: TransportBackend) -> None:
    await backend.declare("orders")
    large = bytes(range(256)) * 4096
    sent = [b"before", large, b"", b"y" * 131_072, b"after"]
    assert await send(backend.transport, *map(a_message, sent), to="orders") == [None] * 5
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    assert bodies(await take(subscription, 5)) == sent


async def test_what_was_not_settled_comes_again_after_a_restart(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, a_message(b"settled"), a_message(b"taken"), a_message(b"waiting"), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=2)
    settled, _ = await take(subscription, 2)
    await subscription.ack([settled])

    await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    again = await take(subscription, 2)
    assert sorted(bodies(again)) == [b"taken", b"waiting"]
    assert next(d.redelivered for d in again if d.envelope.body == b"taken")


async def test_a_closed_subscription_gives_back_what_was_not_taken(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, *(a_message(b"%d" % number) for number in range(6)), to="orders")
    leaving = await backend.transport.subscribe("orders", prefetch_messages=6)
    taken = await take(leaving, 2)
    await leaving.close()
    await leaving.close()

    staying = await backend.transport.subscribe("orders", prefetch_messages=10)
    assert sorted(bodies(await take(staying, 4))) == [b"2", b"3", b"4", b"5"]
    await leaving.ack(taken)
    assert staying.take_nowait(10) == []
    with pytest.raises(TransportError, match="closed"):
        await leaving.take(1)


async def test_closing_ends_a_take_that_waits(backend: TransportBackend) -> None:
    await backend.declare("orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    waiting = asyncio.create_task(subscription.take(1))
    await asyncio.sleep(0)
    await subscription.close()
    with pytest.raises(TransportError):
        await asyncio.wait_for(waiting, 5)


async def test_cancelling_a_take_loses_nothing(backend: TransportBackend) -> None:
    await backend.declare("orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=100)
    taken: list[bytes] = []
    for number in range(30):
        waiting = asyncio.create_task(subscription.take(5))
        await asyncio.sleep(0)
        sending = asyncio.create_task(send(backend.transport, a_message(b"%d" % number), to="orders"))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        if not waiting.cancel() or waiting.done():
            taken += bodies(waiting.result())
        else:
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await sending
    taken += bodies(await take(subscription, 30 - len(taken)))
    assert taken == [b"%d" % number for number in range(30)]


async def test_no_more_than_the_prefetch_is_unsettled(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, *(a_message(b"%d" % number) for number in range(10)), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=3)
    first = await take(subscription, 3)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(subscription.take(1), 0.2)

    await subscription.ack(first[:2])
    assert bodies(await take(subscription, 2)) == [b"3", b"4"]


async def test_a_slow_handler_does_not_starve_those_behind_it(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, *(a_message(b"%d" % number) for number in range(50)), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=5)
    slow, *others = await take(subscription, 5)
    handled = len(others)
    while handled < 49:
        await subscription.ack(others)
        others = await take(subscription, 1) + subscription.take_nowait(5)
        handled += len(others)
    await subscription.ack([*reversed(others), slow])

    await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=5)
    await send(backend.transport, a_message(b"last"), to="orders")
    assert bodies(await take(subscription, 1)) == [b"last"]


async def test_consumers_of_one_queue_share_its_messages(backend: TransportBackend) -> None:
    await backend.declare("orders")
    one = await backend.transport.subscribe("orders", prefetch_messages=5)
    two = await backend.transport.subscribe("orders", prefetch_messages=5)
    await send(backend.transport, *(a_message(b"%d" % number) for number in range(10)), to="orders")
    shares = bodies(await take(one, 5)), bodies(await take(two, 5))
    assert sorted(shares[0] + shares[1]) == sorted(b"%d" % number for number in range(10))


async def test_settling_twice_or_for_a_past_epoch_does_nothing(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, a_message(b"1"), a_message(b"2"), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    first, second = await take(subscription, 2)
    assert first.epoch == second.epoch == subscription.epoch
    assert first.tag < second.tag
    await subscription.ack([first])
    await subscription.ack([first])
    await subscription.retry_later(first, timedelta(0))
    await subscription.dead_letter(first, "again")
    await subscription.ack([second])
    await send(backend.transport, a_message(b"3"), to="orders")
    assert bodies(await take(subscription, 1)) == [b"3"]
    assert await subscription.backlog() == 0


async def test_a_message_put_off_comes_again_later_as_the_next_attempt(backend: TransportBackend) -> None:
    await backend.declare("orders")
    message = a_message(b"patience", type="charge", correlation_id="c", headers={"idempotency-key": "k"})
    await send(backend.transport, message, to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    loop = asyncio.get_running_loop()
    for attempt in (1, 2):
        (delivery,) = await take(subscription, 1)
        assert delivery.attempt == attempt
        put_off_at = loop.time()
        await subscription.retry_later(delivery, timedelta(milliseconds=200))
    (delivery,) = await take(subscription, 1)
    assert loop.time() - put_off_at >= 0.19
    assert delivery.attempt == 3
    assert delivery.envelope.headers["idempotency-key"] == "k"
    assert replace(delivery.envelope, headers={}) == replace(message, headers={})


async def test_a_message_put_off_survives_a_restart(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, a_message(b"patience"), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    (delivery,) = await take(subscription, 1)
    await subscription.retry_later(delivery, timedelta(milliseconds=250))
    await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    (delivery,) = await take(subscription, 1)
    assert (delivery.envelope.body, delivery.attempt) == (b"patience", 2)


async def test_a_dead_letter_keeps_body_and_properties_and_says_why(backend: TransportBackend) -> None:
    if not backend.transport.promises.dead_letters:
        pytest.skip("it keeps no dead letters")
    await backend.declare("orders")
    message = a_message(
        b"\xff not even text",
        type="orders.paid",
        correlation_id="c",
        reply_to="somewhere",
        timestamp=datetime(2026, 1, 1, tzinfo=UTC),
        app_id="shop",
        headers={"saga-id": "s", "n": 1},
    )
    await send(backend.transport, message, to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    (delivery,) = await take(subscription, 1)
    await subscription.dead_letter(delivery, "unreadable", "x" * 100_000)

    dead = await backend.transport.subscribe(dead_letter_queue("orders"), prefetch_messages=1)
    (letter,) = await take(dead, 1)
    headers = dict(letter.envelope.headers)
    assert headers.pop(DEAD_LETTER_REASON) == "unreadable"
    assert str(headers.pop(DEAD_LETTER_DETAIL)).startswith("xxx")
    assert headers.pop(DEAD_LETTER_QUEUE) == backend.transport.full_name("orders")
    assert datetime.fromisoformat(str(headers.pop(DEAD_LETTER_TIME))).tzinfo is not None
    assert replace(letter.envelope, headers=headers) == message

    await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    assert await subscription.backlog() == 0


@pytest.mark.parametrize(
    ("kind", "key", "reached"),
    [
        ("topic", "orders.paid", True),
        ("topic", "orders.*", True),
        ("topic", "*.paid", True),
        ("topic", "#", True),
        ("topic", "orders.#", True),
        ("topic", "orders.paid.#", True),
        ("topic", "#.paid", True),
        ("topic", "orders", False),
        ("topic", "*", False),
        ("topic", "orders.paid.*", False),
        ("topic", "orders.pai", False),
        ("direct", "orders.paid", True),
        ("direct", "orders.*", False),
        ("fanout", "", True),
    ],
)
async def test_a_binding_decides_which_events_reach_the_queue(
    backend: TransportBackend, kind: str, key: str, reached: bool
) -> None:
    await backend.declare("listener", bindings=[Binding(key, f"{kind}-events", kind)])
    subscription = await backend.transport.subscribe("listener", prefetch_messages=10)
    event = Destination("orders.paid", f"{kind}-events", mandatory=False, kind=kind)
    await send(backend.transport, a_message(b"event"), to=event)
    await send(backend.transport, a_message(b"end"), to="listener")
    expected = [b"event", b"end"] if reached else [b"end"]
    assert bodies(await take(subscription, len(expected))) == expected


async def test_a_queue_with_several_matching_bindings_gets_an_event_once(backend: TransportBackend) -> None:
    await backend.declare("listener", "other", bindings=[Binding("orders.*"), Binding("orders.paid")])
    await send(backend.transport, a_message(b"event"), to=to_subscribers("orders.paid"))
    for name in ("listener", "other"):
        subscription = await backend.transport.subscribe(name, prefetch_messages=10)
        await send(backend.transport, a_message(b"end"), to=name)
        assert bodies(await take(subscription, 2)) == [b"event", b"end"]


async def test_an_event_that_nobody_awaits_is_confirmed(backend: TransportBackend) -> None:
    if isinstance(backend, RabbitBackend):
        backend.removes_exchange("events")
    assert await send(backend.transport, a_message(), to=to_subscribers("orders.paid")) == [None]


async def test_a_mandatory_message_to_an_exchange_without_bindings_is_unroutable(
    backend: TransportBackend,
) -> None:
    if not backend.transport.promises.detects_unroutable:
        pytest.skip("it does not detect what is unroutable")
    if isinstance(backend, RabbitBackend):
        backend.removes_exchange("orders-in")
    destination = Destination("orders.new", "orders-in", kind="direct")
    (outcome,) = await send(backend.transport, a_message(), to=destination)
    assert isinstance(outcome, Unroutable)


async def test_a_reply_goes_to_the_full_name_that_was_received(backend: TransportBackend) -> None:
    await backend.declare("service", "replies")
    replies = await backend.transport.subscribe("replies", prefetch_messages=1)
    service = await backend.transport.subscribe("service", prefetch_messages=1)
    question = a_message(b"question", reply_to=backend.transport.full_name("replies"))
    await send(backend.transport, question, to="service")
    (received,) = await take(service, 1)
    await send(backend.transport, a_message(b"answer"), to=to_reply(received.envelope.reply_to))
    assert bodies(await take(replies, 1)) == [b"answer"]


async def test_the_backlog_counts_what_is_not_taken_yet(backend: TransportBackend) -> None:
    await backend.declare("orders")
    await send(backend.transport, *(a_message() for _ in range(7)), to="orders")
    subscription = await backend.transport.subscribe("orders", prefetch_messages=3)

    async def all_there() -> bool:
        return await subscription.backlog() == 7

    await eventually(all_there, "a backlog of seven")
    taken = await take(subscription, 2)

    async def two_less() -> bool:
        return await subscription.backlog() == 5

    await eventually(two_less, "a backlog of five")
    await subscription.ack(taken)


async def test_until_handled_confirms_only_what_its_consumers_have_settled(backend: TransportBackend) -> None:
    if backend.transport.promises.survives_restart:
        pytest.skip("what it confirms is safe already")
    await backend.declare("one", "two", bindings=[Binding("paid")])
    one = await backend.transport.subscribe("one", prefetch_messages=5)
    two = await backend.transport.subscribe("two", prefetch_messages=5)
    event = Outgoing(a_message(b"event"), to_subscribers("paid"), until_handled=True)

    publishing = asyncio.create_task(backend.transport.publish([event], timeout=SOON))
    (at_one,), (at_two,) = await take(one, 1), await take(two, 1)
    await one.ack([at_one])
    await two.retry_later(at_two, timedelta(0))
    (at_two,) = await take(two, 1)
    assert not publishing.done()
    await two.dead_letter(at_two, "no")
    assert await publishing == [None]

    (outcome,) = await backend.transport.publish([event], timeout=timedelta(seconds=0.05))
    assert isinstance(outcome, NotConfirmed)


async def test_a_message_that_keeps_coming_back_ends_among_the_dead_letters(backend: TransportBackend) -> None:
    if isinstance(backend, RabbitBackend) and backend.is_classic:
        pytest.skip("classic queues count no redeliveries")
    await backend.declare("orders", delivery_limit=2)
    await send(backend.transport, a_message(b"deadly"), a_message(b"harmless"), to="orders")
    for _ in range(3):
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        assert bodies(await take(subscription, 1)) == [b"deadly"]
        await backend.restarted()
    subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
    assert bodies(await take(subscription, 1)) == [b"harmless"]
    dead = await backend.transport.subscribe(dead_letter_queue("orders"), prefetch_messages=1)
    assert bodies(await take(dead, 1)) == [b"deadly"]


async def test_consuming_an_undeclared_queue_is_refused(backend: TransportBackend) -> None:
    with pytest.raises(TransportError, match="declare"):
        await backend.transport.subscribe("nobody-declared-this", prefetch_messages=1)


async def test_closing_twice_is_closing_once(backend: TransportBackend) -> None:
    await backend.transport.close()
    await backend.transport.close()
    (outcome,) = await send(backend.transport, a_message(), to="orders")
    assert isinstance(outcome, NotConfirmed)
