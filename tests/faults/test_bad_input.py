"""Whatever arrives on a queue: it is recorded with why, the consumer lives on, and innocents are not touched."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field

import aio_pika

from messaging.rabbitmq import RabbitTransport
from messaging.transport import DEAD_LETTER_QUEUE, DEAD_LETTER_REASON, Delivery
from tests.faults.shop import Kind
from tests.faults.system import EVENTS, PATIENCE, REPLIES, System, eventually
from tests.integration.rabbitmq.raw_client import absurd_timestamp, deep_headers, publish_raw, short_property

# Bodies that no reader takes; they are dead-lettered with their raw bytes.
UNREADABLE = {
    "no UTF-8": b"\xff\xfe{",
    "no JSON": b'{"order_id": ',
    "NUL in a text": b'{"order_id": "a\\u0000b"}',
    "NaN": b'{"order_id": NaN}',
    "too deep": b"[" * 100_000 + b"]" * 100_000,
    "too large": b'"' + b"x" * 10_000_000 + b'"',
    "lone surrogate": b'{"order_id": "\\ud800"}',
}
# Properties that no decent client sends. The first is a content type that is no UTF-8.
UNREADABLE_PROPERTIES = [short_property(15, b"\xff\xfe")]
READABLE_AFTER_ALL = [absurd_timestamp(), deep_headers(2000)]


@dataclass
class Letter:
    """A message as a test posts it."""

    body: bytes
    correlation_id: str = ""
    type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    reply_to: str = ""


async def post(shop: System, queue: str, letters: Sequence[Letter]) -> None:
    connection = await aio_pika.connect(shop.broker_url)
    async with connection, connection.channel() as channel:
        for letter in letters:
            message = aio_pika.Message(
                letter.body,
                message_id=str(uuid.uuid4()),
                type=letter.type,
                correlation_id=letter.correlation_id,
                reply_to=letter.reply_to or None,
                headers=dict(letter.headers),
            )
            await channel.default_exchange.publish(message, shop.prefix + queue)


async def post_raw(shop: System, queue: str) -> None:
    for properties in [*UNREADABLE_PROPERTIES, *READABLE_AFTER_ALL]:
        await publish_raw(shop.broker_url, shop.prefix + queue, properties, b'{"order_id": "1"}')


async def buried(shop: System, queue: str, count: int) -> None:
    """See that so many dead letters lie there, each with why, and take them out.

    Read with a transport of our own: other clients break off at properties that cannot be decoded.
    """
    transport = RabbitTransport(shop.broker_url, prefix=shop.prefix)
    await transport.open()
    dead = await transport.subscribe(f"{queue}.dead", prefetch_messages=100)
    found: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(found) < count:
            found += await dead.take(100)
    await dead.ack(found)
    await transport.close()
    assert len(found) == count
    headers = [delivery.envelope.headers for delivery in found]
    assert all(one.get(DEAD_LETTER_REASON) for one in headers)
    assert {one.get(DEAD_LETTER_QUEUE) for one in headers} == {shop.prefix + queue}
    assert {delivery.envelope.body for delivery in found} >= set(UNREADABLE.values()), "raw bytes are kept"


async def unmatched(shop: System, count: int) -> list[str]:
    async def all_there() -> bool:
        return len(await shop.rows("SELECT 1 FROM saga_unmatched")) >= count

    await eventually(all_there, f"{count} unmatched messages; {shop.children[-1].tail()}")
    rows = await shop.rows("SELECT reason, saga_id FROM saga_unmatched")
    assert len(rows) == count, rows
    assert all(reason for reason, _ in rows)
    return [str(saga_id) for _, saga_id in rows if saga_id]


async def finished(shop: System) -> None:
    assert all(child.alive for child in shop.children if child.process.returncode != 0)
    await shop.all_ended()
    await shop.stop()
    await shop.check(unmatched=True)
    await shop.nothing_left_in_queues()


async def test_replies_that_cannot_be_used_are_kept_with_why_and_decide_nothing(shop: System) -> None:
    await (await shop.start("services")).stop()  # their queues stay
    await shop.start("orchestrator")
    victim, other, *_ = await shop.place([Kind.PLAIN] * 20)

    async def all_asked() -> bool:
        return len(await shop.rows("SELECT 1 FROM saga_step WHERE sent_at IS NOT NULL")) == 20

    await eventually(all_asked, "all commands are sent")
    commands = dict(await shop.rows("SELECT saga_id::text, command_id::text FROM saga_step"))
    victim_id, other_id = str(shop.saga_ids[victim]), str(shop.saga_ids[other])
    to_victim = commands[victim_id]
    answer = json.dumps({"order_id": victim}).encode()

    unreadable = [Letter(body, to_victim) for body in UNREADABLE.values()]
    unreadable.append(Letter(answer, to_victim, headers={"error-code": "a\0b"}))
    unusable = [
        Letter(b"[1, 2]", to_victim),
        Letter(b'"text"', to_victim),
        Letter(b'{"order_id": 17}', to_victim),
        Letter(answer, to_victim, headers={"outcome": "perhaps"}),
    ]
    of_nobody = [Letter(answer, str(uuid.uuid4())), Letter(answer, "no uuid"), Letter(answer)]
    await post(shop, REPLIES, [*unreadable, *unusable, *of_nobody])
    await post_raw(shop, REPLIES)
    await buried(shop, REPLIES, len(unreadable) + len(UNREADABLE_PROPERTIES))
    count = len(unusable) + len(of_nobody) + len(READABLE_AFTER_ALL)
    assert await unmatched(shop, count) == [victim_id] * len(unusable)
    assert set(await shop.column("SELECT current_step FROM saga_instance")) == {"ReservingCredit"}

    # Of two sagas it names, the correlation id alone says which one is answered.
    await post(shop, REPLIES, [Letter(answer, to_victim, headers={"saga-id": other_id, "outcome": "success"})])

    async def victim_is_answered() -> bool:
        rows = dict(await shop.rows("SELECT business_key, current_step FROM saga_instance"))
        return bool(rows[victim] != "ReservingCredit" and rows[other] == "ReservingCredit")

    await eventually(victim_is_answered, "the victim alone goes on")
    await shop.start("services")
    await finished(shop)


async def test_events_that_cannot_be_used_are_kept_with_why(shop: System) -> None:
    await shop.start("orchestrator")
    unreadable = [Letter(body, type="invoice-paid") for body in UNREADABLE.values()]
    unreadable.append(Letter(b"{}", type="a\0b"))
    unusable = [
        Letter(b"[1, 2]", type="invoice-paid"),
        Letter(b'{"order_id": null}', type="invoice-paid"),
        Letter(b"{}", type="invoice-paid", headers={"saga-id": "nobody"}),
        Letter(b'{"order_id": "1"}', type="of-another-shop"),
        Letter(b'{"order_id": "1"}'),
    ]
    of_nobody = [Letter(b'{"order_id": "no such order"}', type="invoice-paid")]
    await post(shop, EVENTS, [*unreadable, *unusable, *of_nobody])
    await post_raw(shop, EVENTS)
    await buried(shop, EVENTS, len(unreadable) + len(UNREADABLE_PROPERTIES))
    await unmatched(shop, len(unusable) + len(READABLE_AFTER_ALL))
    assert await shop.column("SELECT consumed_by FROM saga_event") == [None]
    await shop.start("services")
    await shop.place()
    await finished(shop)


async def test_commands_that_cannot_be_used_are_dead_lettered_and_answered(shop: System) -> None:
    await shop.start("orchestrator")
    await shop.start("services")
    await shop.place()
    good = b'{"order_id": "1", "kind": "plain"}'
    unreadable = [Letter(body, type="reserve-credit") for body in UNREADABLE.values()]
    unusable = [
        Letter(b"[1, 2]", type="reserve-credit"),
        Letter(b'{"order_id": "1", "kind": "unheard of"}', type="reserve-credit"),
        Letter(good, type="of-another-shop"),
        Letter(good),
        Letter(good, type="reserve-credit", headers={"idempotency-key": "a\0b"}),
        Letter(good, type="reserve-credit", headers={"idempotency-key": "k" * 5000}),
    ]
    # This one says where it wants its answer, which fits no saga.
    unusable.append(Letter(b"[]", str(uuid.uuid4()), "reserve-credit", reply_to=shop.prefix + REPLIES))
    await post(shop, "customers", [*unreadable, *unusable])
    await post_raw(shop, "customers")
    without_type = len(UNREADABLE_PROPERTIES) + len(READABLE_AFTER_ALL)
    await buried(shop, "customers", len(unreadable) + len(unusable) + without_type)
    await unmatched(shop, 1)
    await shop.place()
    await finished(shop)
