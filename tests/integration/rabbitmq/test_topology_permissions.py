"""The permissions that we ship for RabbitMQ are enough for each service, and for nothing of another's."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aiormq.exceptions import ChannelAccessRefused

from messaging.dead_letters import TransportWithDeadLetters
from messaging.envelope import Envelope, to_queue
from messaging.settings import MessagingSettings
from messaging.transport import Outgoing
from messaging.wiring import bare_transport_from
from orchestrator.instance import SagaStatus
from tests.support.tls_rabbit import SHIPPED_DEFINITIONS, PrivateTlsRabbit
from tests.unit.engine.shop import shop


def url_of(rabbit: PrivateTlsRabbit, user: str) -> str:
    """Of the virtual host `shop`, as this user, without TLS."""
    users = json.loads(SHIPPED_DEFINITIONS.read_text("utf-8"))["users"]
    password = next(one["password"] for one in users if one["name"] == user)
    parts = urlsplit(rabbit.url)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.hostname}:{parts.port}", path="/shop"))


async def transport_of(stack: AsyncExitStack, rabbit: PrivateTlsRabbit, user: str) -> TransportWithDeadLetters:
    settings = MessagingSettings.model_validate({"broker_url": url_of(rabbit, user), "queue_type": "classic"})
    transport = bare_transport_from(settings, app_id=user)
    await transport.open()
    stack.push_async_callback(transport.close)
    return transport


async def channel_of(stack: AsyncExitStack, rabbit: PrivateTlsRabbit, user: str) -> AbstractChannel:
    connection = await stack.enter_async_context(await aio_pika.connect(url_of(rabbit, user)))
    return await connection.channel()


async def test_every_service_does_its_part_of_a_saga_with_its_own_rights(
    tls_rabbit: PrivateTlsRabbit, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        own = {name: await transport_of(stack, tls_rabbit, name) for name in ("customers", "warehouse")}
        engine = await transport_of(stack, tls_rabbit, "orchestrator")
        async with shop(tmp_path, transport=engine, participants=own) as at:
            ended = [(await at.ended(order))[1] for order in ("one", "refused")]
        assert ended == [SagaStatus.COMPLETED, SagaStatus.COMPENSATED]

        messages = [Outgoing(Envelope(f"m{n}", b"{}"), to_queue("customers")) for n in range(2)]
        assert await engine.publish(messages, timeout=timedelta(seconds=30)) == [None, None]
        taken = await own["customers"].subscribe("customers", prefetch_messages=2)
        ((put_off,), (dead,)) = [await taken.take(1) for _ in messages]
        await taken.retry_later(put_off, timedelta(seconds=1))
        await taken.dead_letter(dead, "of no use")
        operator = await transport_of(stack, tls_rabbit, "operator")
        async with operator.dead_letters("customers") as look:
            letter = await look.next()
            assert letter is not None
            await look.replay(letter)


@pytest.mark.parametrize("user", ["customers", "operator"])
async def test_nobody_touches_what_is_anothers(tls_rabbit: PrivateTlsRabbit, user: str) -> None:
    async with AsyncExitStack() as stack:
        everything = await stack.enter_async_context(await aio_pika.connect(f"{tls_rabbit.url}shop"))
        made = await everything.channel()
        await made.declare_queue("secrets")
        await made.declare_exchange("theirs")

        for attempt in (consumes, declares, binds, publishes):
            with pytest.raises(ChannelAccessRefused):
                await attempt(await channel_of(stack, tls_rabbit, user))


async def consumes(channel: AbstractChannel) -> None:
    await (await channel.get_queue("secrets", ensure=False)).consume(print)


async def declares(channel: AbstractChannel) -> None:
    await channel.declare_queue("more", durable=True)


async def binds(channel: AbstractChannel) -> None:
    await (await channel.get_queue("secrets", ensure=False)).bind("events", "#")


async def publishes(channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange("theirs", ensure=False)
    await exchange.publish(aio_pika.Message(b"{}"), routing_key="")
