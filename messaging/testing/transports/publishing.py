"""What a transport keeps when it publishes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from messaging.envelope import Envelope, to_queue, to_subscribers
from messaging.errors import MessageTooLarge, TopologyMismatch, Unroutable
from messaging.testing.transports.backend import SOON, TransportBackend, a_message, bodies, send, take
from messaging.transport import (
    Binding,
    Outgoing,
)


class PublishingSuite:
    """Messages arrive whole, in order where that is promised, and each has its own outcome."""

    async def test_what_is_published_is_delivered_in_order_and_gone_once_acknowledged(
        self,
        backend: TransportBackend,
    ) -> None:
        await backend.declare("orders")
        sent = [a_message(b"%d" % number) for number in range(5)]
        assert await send(backend.transport, *sent, to="orders") == [None] * 5

        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        taken = await take(subscription, 5)
        assert backend.in_order(*bodies(taken)) == [message.body for message in sent]
        assert {delivery.envelope.message_id for delivery in taken} == {message.message_id for message in sent}
        assert {delivery.queue for delivery in taken} == {"orders"}
        assert subscription.queue == backend.transport.full_name("orders")
        await subscription.ack(taken)

        await backend.restarted()
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        await send(backend.transport, a_message(b"next"), to="orders")
        assert bodies(await take(subscription, 1)) == [b"next"]

    async def test_declaring_twice_is_declaring_once(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.broadcasts:
            pytest.skip("it has no bindings")
        binding = Binding("orders.paid")
        await backend.declare("orders", bindings=[binding])
        await backend.declare("orders", bindings=[binding])
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        await send(backend.transport, a_message(b"once"), to=to_subscribers("orders.paid"))
        await send(backend.transport, a_message(b"end"), to="orders")
        assert backend.in_order(*bodies(await take(subscription, 2))) == backend.in_order(b"once", b"end")

    async def test_a_queue_that_has_another_owner_is_not_declared(self, backend: TransportBackend) -> None:
        await backend.declare("replies", owner="installation-1")
        await backend.declare("replies", owner="installation-1")
        with pytest.raises(TopologyMismatch, match=r"replies.*installation-2"):
            await backend.declare("replies", owner="installation-2")

    async def test_every_property_makes_the_round_trip(self, backend: TransportBackend) -> None:
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

    async def test_a_bare_message_stays_bare(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        await send(backend.transport, Envelope("", b"", content_type=""), to="orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        (delivery,) = await take(subscription, 1)
        envelope = replace(delivery.envelope, message_id="")
        assert envelope == Envelope("", b"", content_type="")

    async def test_each_message_of_a_batch_has_its_own_outcome(self, backend: TransportBackend) -> None:
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

    async def test_a_batch_of_five_hundred_arrives_in_order(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        sent = [a_message(b"%d" % number, type="charge", headers={"saga-id": str(number)}) for number in range(500)]
        assert await send(backend.transport, *sent, to="orders") == [None] * 500
        subscription = await backend.transport.subscribe("orders", prefetch_messages=200)
        taken: list[bytes] = []
        while len(taken) < 500:
            deliveries = await take(subscription, 1) + subscription.take_nowait(200)
            await subscription.ack(deliveries)
            taken += bodies(deliveries)
        assert backend.in_order(*taken) == backend.in_order(*(message.body for message in sent))

    async def test_two_messages_with_one_id_in_a_batch_both_arrive(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        sent = [a_message(b"first", message_id="same"), a_message(b"second", message_id="same")]
        assert await send(backend.transport, *sent, to="orders") == [None, None]
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        assert backend.in_order(*bodies(await take(subscription, 2))) == [b"first", b"second"]

    async def test_copies_of_one_message_to_several_places_are_told_apart(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.detects_unroutable:
            pytest.skip("it does not detect what is unroutable")
        await backend.declare("orders")
        message = a_message(message_id="same")
        batch = [Outgoing(message, to_queue(name)) for name in ("orders", "nowhere", "orders", "nowhere")]
        outcomes = await backend.transport.publish(batch, timeout=SOON)
        assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable, type(None), Unroutable]

    async def test_publishers_at_the_same_time_do_not_mix_their_outcomes(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.detects_unroutable:
            pytest.skip("it does not detect what is unroutable")
        await backend.declare("orders")

        async def publisher(number: int) -> bool:
            batch = [Outgoing(a_message(), to_queue("orders" if (number + n) % 3 else "nowhere")) for n in range(20)]
            outcomes = await backend.transport.publish(batch, timeout=SOON)
            lost = [isinstance(outcome, Unroutable) for outcome in outcomes]
            return lost == [(number + n) % 3 == 0 for n in range(20)]

        assert all(await asyncio.gather(*(publisher(number) for number in range(10))))

    async def test_a_body_over_the_limit_is_refused_and_its_neighbours_are_not(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        large = a_message(b"x" * ((1 << 20) + 1))
        first, second, third = await send(backend.transport, a_message(), large, a_message(), to="orders")
        assert first is None
        assert isinstance(second, MessageTooLarge)
        assert third is None

    async def test_a_batch_may_hold_events_and_commands(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.broadcasts:
            pytest.skip("it has no bindings")
        await backend.declare("orders", bindings=[Binding("paid")])
        await backend.transport.publish([], timeout=SOON)
        events, commands = to_subscribers("paid"), to_queue("orders")
        batch = [Outgoing(a_message(b"%d" % n), events if n % 2 else commands) for n in range(6)]
        assert await backend.transport.publish(batch, timeout=SOON) == [None] * 6
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        assert sorted(bodies(await take(subscription, 6))) == [b"%d" % n for n in range(6)]

    async def test_a_body_of_a_megabyte_arrives_whole_among_small_ones(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        large = bytes(range(256)) * 4096
        sent = [b"before", large, b"", b"y" * 131_072, b"after"]
        assert await send(backend.transport, *map(a_message, sent), to="orders") == [None] * 5
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        assert backend.in_order(*bodies(await take(subscription, 5))) == backend.in_order(*sent)
