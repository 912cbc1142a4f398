"""What a transport keeps when it delivers and settles."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from messaging.envelope import to_subscribers
from messaging.errors import NotConfirmed, TransportError
from messaging.testing.transports.backend import SOON, TransportBackend, a_message, bodies, eventually, send, take
from messaging.transport import (
    Binding,
    Outgoing,
)


class ConsumingSuite:
    """Nothing is lost or given twice by taking, cancelling, settling, closing and starting again."""

    async def test_what_was_not_settled_comes_again_after_a_restart(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        await send(backend.transport, a_message(b"settled"), a_message(b"taken"), a_message(b"waiting"), to="orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=2)
        settled, taken = await take(subscription, 2)
        await subscription.ack([settled])

        await backend.restarted()
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        again = await take(subscription, 2)
        assert sorted([settled.envelope.body, *bodies(again)]) == [b"settled", b"taken", b"waiting"]
        assert next(d.redelivered for d in again if d.envelope.body == taken.envelope.body)

    async def test_a_closed_subscription_gives_back_what_was_not_taken(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        await send(backend.transport, *(a_message(b"%d" % number) for number in range(6)), to="orders")
        leaving = await backend.transport.subscribe("orders", prefetch_messages=6)
        taken = await take(leaving, 2)
        await leaving.close()
        await leaving.close()

        staying = await backend.transport.subscribe("orders", prefetch_messages=10)
        assert sorted(bodies(taken) + bodies(await take(staying, 4))) == [b"%d" % number for number in range(6)]
        await leaving.ack(taken)
        assert staying.take_nowait(10) == []
        with pytest.raises(TransportError, match="closed"):
            await leaving.take(1)

    async def test_closing_ends_a_take_that_waits(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=10)
        waiting = asyncio.create_task(subscription.take(1))
        await asyncio.sleep(0)
        await subscription.close()
        with pytest.raises(TransportError):
            await asyncio.wait_for(waiting, 5)

    async def test_cancelling_a_take_loses_nothing(self, backend: TransportBackend) -> None:
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
        assert backend.in_order(*taken) == backend.in_order(*(b"%d" % number for number in range(30)))

    async def test_no_more_than_the_prefetch_is_unsettled(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        await send(backend.transport, *(a_message(b"%d" % number) for number in range(10)), to="orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=3)
        first = await take(subscription, 3)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(subscription.take(1), 0.2)

        await subscription.ack(first[:2])
        assert len({*bodies(first), *bodies(await take(subscription, 2))}) == 5

    async def test_a_slow_handler_does_not_starve_those_behind_it(self, backend: TransportBackend) -> None:
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

    async def test_consumers_of_one_queue_share_its_messages(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        one = await backend.transport.subscribe("orders", prefetch_messages=5)
        two = await backend.transport.subscribe("orders", prefetch_messages=5)
        await send(backend.transport, *(a_message(b"%d" % number) for number in range(10)), to="orders")
        shares = bodies(await take(one, 5)), bodies(await take(two, 5))
        assert sorted(shares[0] + shares[1]) == sorted(b"%d" % number for number in range(10))

    async def test_settling_twice_or_for_a_past_epoch_does_nothing(self, backend: TransportBackend) -> None:
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

    async def test_a_message_put_off_comes_again_later_as_the_next_attempt(self, backend: TransportBackend) -> None:
        await backend.declare("orders")
        message = a_message(b"patience", type="charge", correlation_id="c", headers={"idempotency-key": "k"})
        await send(backend.transport, message, to="orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        loop = asyncio.get_running_loop()
        put_off_at = loop.time()
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

    async def test_a_message_put_off_survives_a_restart(self, backend: TransportBackend) -> None:
        if not backend.transport.promises.delays:
            pytest.skip("it delays as long as the process lives")
        await backend.declare("orders")
        await send(backend.transport, a_message(b"patience"), to="orders")
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        (delivery,) = await take(subscription, 1)
        await subscription.retry_later(delivery, timedelta(milliseconds=250))
        await backend.restarted()
        subscription = await backend.transport.subscribe("orders", prefetch_messages=1)
        (delivery,) = await take(subscription, 1)
        assert (delivery.envelope.body, delivery.attempt) == (b"patience", 2)

    async def test_the_backlog_counts_what_is_not_taken_yet(self, backend: TransportBackend) -> None:
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

    async def test_until_handled_confirms_only_what_its_consumers_have_settled(self, backend: TransportBackend) -> None:
        promises = backend.transport.promises
        if promises.survives_restart or not promises.broadcasts:
            pytest.skip("what it confirms is safe already, or reaches one queue only")
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

    async def test_consuming_an_undeclared_queue_is_refused(self, backend: TransportBackend) -> None:
        with pytest.raises(TransportError, match="declare"):
            await backend.transport.subscribe("nobody-declared-this", prefetch_messages=1)

    async def test_closing_twice_is_closing_once(self, backend: TransportBackend) -> None:
        await backend.transport.close()
        await backend.transport.close()
        (outcome,) = await send(backend.transport, a_message(), to="orders")
        assert isinstance(outcome, NotConfirmed)
