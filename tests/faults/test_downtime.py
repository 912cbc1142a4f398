"""The orchestrator is away while answers pile up past their deadlines: on return they count."""

from __future__ import annotations

import asyncio

import aio_pika

from tests.faults.shop import Kind
from tests.faults.system import REPLIES, System, eventually
from tests.support.broker import Broker

STEP_TIMEOUT = {"SHOP_STEP_TIMEOUT_SECONDS": "3"}


async def test_answers_that_waited_past_their_deadlines_count_and_one_that_never_came_is_asked_for_again(
    shop: System, broker: Broker
) -> None:
    shop.settings = STEP_TIMEOUT
    await declared_and_away(shop)
    orchestrator = await shop.start("orchestrator")
    await shop.place([Kind.PLAIN] * 200)
    await eventually(lambda: holds(broker, f"{shop.prefix}customers", 200), "all commands are sent")
    await eventually(lambda: all_marked_as_sent(shop), "it is known of each that it was sent")
    await orchestrator.kill()
    lost = await stolen_from(shop, f"{shop.prefix}customers")

    await shop.start("services")
    await eventually(lambda: holds(broker, f"{shop.prefix}{REPLIES}", 199), "all answers wait")
    await eventually(lambda: deadlines_passed(shop), "all deadlines have passed")
    # In small bites, so that deadlines are looked at while answers still wait.
    small = {"ORCHESTRATOR_BATCH": "20", "ORCHESTRATOR_PREFETCH_MESSAGES": "20"}
    await shop.start("orchestrator", **small)
    await shop.finished()

    asked = await shop.column("SELECT attempt FROM saga_step WHERE step = 'ReservingCredit' ORDER BY attempt")
    again = set(await shop.column("SELECT saga_id::text FROM saga_attempt WHERE step = 'ReservingCredit'"))
    assert again == set(await shop.column(f"SELECT saga_id::text FROM saga_attempt WHERE command_id = '{lost}'"))
    assert asked[:199] == [1] * 199 and asked[199] > 1, "on a slow machine it may be asked more than once again"


async def declared_and_away(shop: System) -> None:
    """Leave the queues of the services, without the services."""
    services = await shop.start("services")
    await services.stop()


async def holds(broker: Broker, queue: str, count: int) -> bool:
    return await broker.depth(queue) == count


async def all_marked_as_sent(shop: System) -> bool:
    return await shop.column("SELECT count(*) FROM saga_step WHERE sent_at IS NULL") == [0]


async def deadlines_passed(shop: System) -> bool:
    (open_,) = await shop.column("SELECT count(*) FROM saga_step WHERE deadline > clock_timestamp()")
    return bool(open_ == 0)


async def stolen_from(shop: System, queue: str) -> str:
    """Take one command away for good; returns its id."""
    connection = await asyncio.wait_for(aio_pika.connect(shop.broker_url), 30)
    async with connection, connection.channel() as channel:
        message = await (await channel.get_queue(queue)).get()
        await message.ack()
        assert message.message_id is not None
        return message.message_id
