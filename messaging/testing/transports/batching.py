"""What a transport keeps of messages that travel many in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from messaging.batches import BATCH
from messaging.coalescing import Coalescing
from messaging.envelope import TRACEPARENT, Envelope, to_queue, to_reply
from messaging.errors import PublishError, Unroutable
from messaging.splitting import subscribed
from messaging.testing.transports.backend import SOON, TransportBackend, a_message, bodies, eventually, take
from messaging.transport import (
    DEAD_LETTER_ATTEMPTS,
    DEAD_LETTER_QUEUE,
    DEAD_LETTER_REASON,
    Delivery,
    Outgoing,
    Subscription,
    dead_letter_queue,
)


class BatchingSuite:
    """Each message of a batch is delivered, put off and dead-lettered as if it had come alone."""

    async def test_joined_messages_arrive_as_they_were_sent_and_no_more_than_fifty_in_one(
        self, backend: TransportBackend
    ) -> None:
        await _declared(backend)
        sent = [_command(number) for number in range(120)]
        assert await _send_joined(backend, *sent) == [None] * 120
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)

        async def three_batches() -> bool:
            return await subscription.backlog() == 3

        await eventually(three_batches, "three messages for 120")
        taken = await take(subscription, 120)

        assert [delivery.envelope for delivery in taken] == sent
        assert not any(delivery.redelivered or delivery.attempt > 1 or delivery.problem for delivery in taken)
        await subscription.ack(taken)
        await _nothing_is_left(backend)

    async def test_only_what_may_be_joined_is_and_only_to_queues_that_take_it(self, backend: TransportBackend) -> None:
        await _declared(backend, "orders", "others")
        joining = Coalescing(backend.transport, {"orders"})
        sendings = [
            [Outgoing(_command(n), to_queue("others"), may_join=True) for n in range(2)],
            [Outgoing(_command(n), to_queue("orders")) for n in range(2)],
            [Outgoing(_command(2), to_queue("orders"), may_join=True)],
            [Outgoing(a_message(b"no JSON"), to_queue("orders"), may_join=True) for _ in range(2)],
        ]
        for messages in sendings:
            assert set(await joining.publish(messages, timeout=SOON)) == {None}
        for queue, count in (("others", 2), ("orders", 5)):
            plain = await backend.transport.subscribe(queue, prefetch_messages=10)
            assert {one.envelope.content_type for one in await take(plain, count)} == {"application/json"}

    async def test_answers_are_joined_by_the_full_name_of_their_queue(self, backend: TransportBackend) -> None:
        await _declared(backend)
        reply_to = to_reply(backend.transport.full_name("orders"))
        messages = [Outgoing(_command(n), reply_to, may_join=True) for n in range(2)]
        assert await Coalescing(backend.transport, {"orders"}).publish(messages, timeout=SOON) == [None, None]
        plain = await backend.transport.subscribe("orders", prefetch_messages=10)
        (batch,) = await take(plain, 1)
        assert (batch.envelope.content_type, batch.envelope.reply_to) == (BATCH, "")

    async def test_a_batch_is_never_larger_than_a_body_may_be(self, backend: TransportBackend) -> None:
        await _declared(backend)
        large = [a_message(b'"%s"' % (b"x" * 400_000)) for _ in range(5)]
        assert await _send_joined(backend, *large) == [None] * 5
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        assert len(bodies(await take(subscription, 5))) == 5

    async def test_an_item_is_put_off_and_dead_lettered_alone(self, backend: TransportBackend) -> None:
        await _declared(backend)
        sent = [_command(number) for number in range(4)]
        await _send_joined(backend, *sent)
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        first, failing, useless, last = await take(subscription, 4)

        await subscription.retry_later(failing, timedelta(milliseconds=50))
        await subscription.dead_letter(useless, "of no use", "to anybody")
        for again in (failing, useless):  # settled already
            await subscription.retry_later(again, timedelta(0))
            await subscription.dead_letter(again, "again")
        (later,) = await take(subscription, 1)
        assert replace(later.envelope, headers=failing.envelope.headers) == failing.envelope
        assert failing.envelope.headers.items() <= later.envelope.headers.items()
        assert (later.attempt, later.part) == (2, None)
        await subscription.ack([first, last, later])

        dead = await backend.transport.subscribe(dead_letter_queue("orders"), prefetch_messages=10)
        (letter,) = await take(dead, 1)
        headers = letter.envelope.headers
        assert replace(letter.envelope, headers=useless.envelope.headers) == useless.envelope
        assert useless.envelope.headers.items() <= headers.items()
        assert (headers[DEAD_LETTER_REASON], headers[DEAD_LETTER_ATTEMPTS]) == ("of no use", 1)
        assert headers[DEAD_LETTER_QUEUE] == backend.transport.full_name("orders")
        await _nothing_is_left(backend)

    async def test_copies_in_one_batch_are_put_off_each(self, backend: TransportBackend) -> None:
        await _declared(backend)
        await _send_joined(backend, *[_command(1)] * 2)
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        for copy in await take(subscription, 2):
            await subscription.retry_later(copy, timedelta(milliseconds=100))
        assert [later.attempt for later in await take(subscription, 2)] == [2, 2]

    async def test_a_batch_that_comes_again_leaves_as_plain_messages(self, backend: TransportBackend) -> None:
        await _declared(backend)
        sent = [_command(number) for number in range(5)]
        await _send_joined(backend, *sent)
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        *handled, _ = await take(subscription, 5)
        await subscription.ack(handled)  # all but the last, so the batch is not settled

        await backend.restarted()
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        again = await take(subscription, 5)
        assert [delivery.part for delivery in again] == [None] * 5
        assert _by_id(again) == {one.message_id: one for one in sent}
        await subscription.ack(again)
        await subscription.close()
        await _nothing_is_left(backend)

    async def test_the_rest_of_a_batch_leaves_plain_when_its_subscription_closes(
        self, backend: TransportBackend
    ) -> None:
        await _declared(backend)
        sent = [_command(number) for number in range(5)]
        await _send_joined(backend, *sent)
        leaving = await subscribed(backend.transport, "orders", prefetch_messages=10)
        taken = await take(leaving, 2)
        await leaving.close()
        await leaving.ack(taken)

        staying = await subscribed(backend.transport, "orders", prefetch_messages=10)
        rest = await take(staying, 3)
        assert _by_id(taken) | _by_id(rest) == {one.message_id: one for one in sent}
        await staying.ack(rest)
        await _nothing_is_left(backend)

    async def test_each_message_of_a_refused_batch_is_told_of(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.detects_unroutable:
            pytest.skip("it does not detect what is unroutable")
        await _declared(backend)
        messages = [Outgoing(_command(n), to_queue("nowhere" if n % 2 else "orders"), may_join=True) for n in range(6)]
        outcomes = await Coalescing(backend.transport, {"orders", "nowhere"}).publish(messages, timeout=SOON)
        assert [type(outcome) for outcome in outcomes] == [type(None), Unroutable] * 3
        assert [outcome.message_id for outcome in outcomes if outcome] == ["m-1", "m-3", "m-5"]

    async def test_a_batch_that_cannot_be_read_is_dead_lettered_as_it_came(self, backend: TransportBackend) -> None:
        await _declared(backend)
        broken = a_message(b'[{"properties": {"message_id": "m-1"}, "body": {', content_type=BATCH)
        assert await backend.transport.publish([Outgoing(broken, to_queue("orders"))], timeout=SOON) == [None]
        subscription = await subscribed(backend.transport, "orders", prefetch_messages=10)
        (delivery,) = await take(subscription, 1)
        assert delivery.envelope == broken and "the batch cannot be read" in delivery.problem
        await subscription.dead_letter(delivery, delivery.problem)

        dead = await backend.transport.subscribe(dead_letter_queue("orders"), prefetch_messages=10)
        (letter,) = await take(dead, 1)
        assert replace(letter.envelope, headers={}) == broken


async def _declared(backend: TransportBackend, *queues: str) -> None:
    if not backend.transport.promises.parts:
        pytest.skip("it takes no batches")
    await backend.declare(*(queues or ("orders",)))


def _command(number: int) -> Envelope:
    """A message with all that may differ from one item to the next."""
    return a_message(
        b'{"n": %d, "text": "\xc3\xa4", "price": 1.10}' % number,
        message_id=f"m-{number}",
        type=f"orders.place-{number % 3}",
        correlation_id=f"c-{number}",
        reply_to="replies" if number % 2 else "",
        timestamp=datetime(2026, 1, 1, 0, 0, number % 60, tzinfo=UTC),
        app_id="shop",
        headers={TRACEPARENT: f"00-{number:032x}-{number:016x}-01", "attempt": number} if number % 5 else {},
    )


async def _send_joined(backend: TransportBackend, *envelopes: Envelope) -> list[PublishError | None]:
    messages = [Outgoing(envelope, to_queue("orders"), may_join=True) for envelope in envelopes]
    return await Coalescing(backend.transport, {"orders"}).publish(messages, timeout=SOON)


def _by_id(deliveries: Sequence[Delivery]) -> dict[str, Envelope]:
    return {delivery.envelope.message_id: delivery.envelope for delivery in deliveries}


async def _nothing_is_left(backend: TransportBackend) -> None:
    """Whoever comes next is given nothing again: all was settled."""
    await backend.restarted()
    subscription: Subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
    assert await subscription.backlog() == 0 and subscription.take_nowait(1) == []
