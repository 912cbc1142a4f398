"""What a transport keeps of dead letters, bindings and replies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from messaging.envelope import Destination, ExchangeKind, to_reply, to_subscribers
from messaging.errors import TransportError, Unroutable
from messaging.testing.transports.backend import TransportBackend, a_message, bodies, send, take
from messaging.transport import (
    DEAD_LETTER_ATTEMPTS,
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_ROUTING_KEY,
    DEAD_LETTER_TIME,
    Binding,
    dead_letter_queue,
)


class RoutingSuite:
    """Messages reach the queues they are meant for, dead letters and replies among them."""

    async def test_a_dead_letter_keeps_body_and_properties_and_says_why(self, backend: TransportBackend) -> None:
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
        await subscription.dead_letter(delivery, "unreadable", f"how it began {'x' * 100_000} how it ended")

        dead = await backend.transport.subscribe(dead_letter_queue("orders"), prefetch_messages=1)
        (letter,) = await take(dead, 1)
        headers = dict(letter.envelope.headers)
        assert headers.pop(DEAD_LETTER_REASON) == "unreadable"
        detail = str(headers.pop(DEAD_LETTER_DETAIL))
        assert detail.startswith("how it began xxx") and detail.endswith("xxx how it ended")
        assert 4000 < len(detail) <= 4096
        assert headers.pop(DEAD_LETTER_ATTEMPTS) == 1
        assert headers.pop(DEAD_LETTER_QUEUE) == backend.transport.full_name("orders")
        assert headers.pop(DEAD_LETTER_EXCHANGE) == ""
        assert headers.pop(DEAD_LETTER_ROUTING_KEY) == backend.transport.full_name("orders")
        assert datetime.fromisoformat(str(headers.pop(DEAD_LETTER_TIME))).tzinfo is not None
        assert replace(letter.envelope, headers=headers) == message

        await backend.restarted()
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        assert await subscription.backlog() == 0

    async def test_a_dead_letter_tells_how_often_it_was_tried_and_where_it_was_published(
        self,
        backend: TransportBackend,
    ) -> None:
        promises = backend.transport.promises
        if not (promises.dead_letters and promises.broadcasts):
            pytest.skip("it keeps no dead letters of events")
        await backend.declare("listener", bindings=[Binding("orders.*")])
        subscription = await backend.transport.subscribe("listener", prefetch_messages=1)
        await send(backend.transport, a_message(b"event", headers={"n": 1}), to=to_subscribers("orders.paid"))
        for _ in range(2):
            (delivery,) = await take(subscription, 1)
            await subscription.retry_later(delivery, timedelta(0))
        (delivery,) = await take(subscription, 1)
        assert {name for name in delivery.envelope.headers if "attempt" in name} == set()
        await subscription.dead_letter(delivery, "three times is enough")

        dead = await backend.transport.subscribe(dead_letter_queue("listener"), prefetch_messages=1)
        (letter,) = await take(dead, 1)
        headers = letter.envelope.headers
        assert headers[DEAD_LETTER_ATTEMPTS] == 3
        assert headers[DEAD_LETTER_QUEUE] == backend.transport.full_name("listener")
        assert str(headers[DEAD_LETTER_EXCHANGE]).endswith("events")
        assert headers[DEAD_LETTER_ROUTING_KEY] == "orders.paid"

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
        self, backend: TransportBackend, kind: ExchangeKind, key: str, reached: bool
    ) -> None:
        if not backend.transport.promises.broadcasts:
            pytest.skip("it has no bindings")
        await backend.declare("listener", bindings=[Binding(key, f"{kind}-events", kind)])
        subscription = await backend.transport.subscribe("listener", prefetch_messages=10)
        event = Destination("orders.paid", f"{kind}-events", mandatory=False, kind=kind)
        await send(backend.transport, a_message(b"event"), to=event)
        await send(backend.transport, a_message(b"end"), to="listener")
        expected = [b"event", b"end"] if reached else [b"end"]
        assert backend.in_order(*bodies(await take(subscription, len(expected)))) == backend.in_order(*expected)

    async def test_a_queue_with_several_matching_bindings_gets_an_event_once(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.broadcasts:
            pytest.skip("it has no bindings")
        await backend.declare("listener", "other", bindings=[Binding("orders.*"), Binding("orders.paid")])
        await send(backend.transport, a_message(b"event"), to=to_subscribers("orders.paid"))
        for name in ("listener", "other"):
            subscription = await backend.transport.subscribe(name, prefetch_messages=10)
            await send(backend.transport, a_message(b"end"), to=name)
            assert backend.in_order(*bodies(await take(subscription, 2))) == backend.in_order(b"event", b"end")

    async def test_bindings_are_refused_where_nothing_is_broadcast(self, backend: TransportBackend) -> None:
        if backend.transport.promises.broadcasts:
            pytest.skip("it has bindings")
        with pytest.raises(TransportError):
            await backend.declare("listener", bindings=[Binding("orders.paid")])

    async def test_an_event_that_nobody_awaits_is_confirmed(self, backend: TransportBackend) -> None:
        backend.will_use_exchange("events")
        assert await send(backend.transport, a_message(), to=to_subscribers("orders.paid")) == [None]

    async def test_a_mandatory_message_to_an_exchange_without_bindings_is_unroutable(
        self,
        backend: TransportBackend,
    ) -> None:
        if not backend.transport.promises.detects_unroutable:
            pytest.skip("it does not detect what is unroutable")
        backend.will_use_exchange("orders-in")
        destination = Destination("orders.new", "orders-in", kind="direct")
        (outcome,) = await send(backend.transport, a_message(), to=destination)
        assert isinstance(outcome, Unroutable)

    async def test_a_reply_goes_to_the_full_name_that_was_received(self, backend: TransportBackend) -> None:
        await backend.declare("service", "replies")
        replies = await backend.transport.subscribe("replies", prefetch_messages=1)
        service = await backend.transport.subscribe("service", prefetch_messages=1)
        question = a_message(b"question", reply_to=backend.transport.full_name("replies"))
        await send(backend.transport, question, to="service")
        (received,) = await take(service, 1)
        await send(backend.transport, a_message(b"answer"), to=to_reply(received.envelope.reply_to))
        assert bodies(await take(replies, 1)) == [b"answer"]

    async def test_a_message_that_keeps_coming_back_ends_among_the_dead_letters(
        self, backend: TransportBackend
    ) -> None:
        if not (backend.counts_redeliveries and backend.transport.promises.keeps_order):
            pytest.skip("it counts no redeliveries, or nobody knows which message comes")
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
