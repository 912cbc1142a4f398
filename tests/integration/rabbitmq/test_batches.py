"""Commands and answers that travel many in one message, over a real broker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Final

import aio_pika
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from messaging.coalescing import Coalescing
from messaging.envelope import to_queue
from messaging.errors import NotConfirmed
from messaging.messages import Command, Failure, Reply
from messaging.middleware import DeliverNext, Middleware, Settled
from messaging.rabbitmq import RabbitTransport
from messaging.service import Service
from messaging.settings import MessagingSettings
from messaging.splitting import subscribed
from messaging.testing.transports.backend import eventually
from messaging.transport import Delivery, Outgoing
from orchestrator import Orchestrator, Saga, SagaClient, SagaStatus, Step, running
from orchestrator.settings import OrchestratorSettings
from orchestrator.sql.migrate import upgrade
from orchestrator.watching import Watcher
from tests.conformance.transport_backends import a_message, remove_afterwards, send, take
from tests.support.broker import Broker

REPLIES: Final = "orchestrator.main.replies"
PATIENCE: Final = timedelta(seconds=60)


async def test_a_full_queue_refuses_a_batch_whose_messages_can_go_alone_later(
    amqp_url: str, prefix: str, broker: Broker
) -> None:
    broker.queue(f"{prefix}narrow")
    connection = await aio_pika.connect(amqp_url)
    async with connection, connection.channel() as channel:
        bounds = {"x-max-length": 1, "x-overflow": "reject-publish"}
        await channel.declare_queue(f"{prefix}narrow", durable=True, arguments=bounds)
    transport = RabbitTransport(amqp_url, prefix=prefix)
    await transport.open()
    assert await send(transport, a_message(b"1"), to="narrow") == [None]
    joining = Coalescing(transport, {"narrow"})
    messages = [Outgoing(a_message(b"%d" % n, message_id=f"m-{n}"), to_queue("narrow"), may_join=True) for n in (2, 3)]

    refused = await joining.publish(messages, timeout=PATIENCE)

    assert [type(outcome) for outcome in refused] == [NotConfirmed] * 2
    assert [outcome.message_id for outcome in refused if outcome] == ["m-2", "m-3"]
    subscription = await subscribed(transport, "narrow", prefetch_messages=1)
    for number, message in enumerate(messages, start=1):
        (delivery,) = await take(subscription, 1)
        assert (delivery.envelope.body, delivery.part) == (b"%d" % number, None)
        await subscription.ack([delivery])
        alone = Outgoing(message.envelope, message.destination)
        assert await joining.publish([alone], timeout=PATIENCE) == [None]
    await transport.close()


class Trip(BaseModel):
    number: int


class Booked(Reply):
    number: int


class BookSeat(Command[Booked]):
    number: int


class BookingSeat(Step[Trip, Booked]):
    participant = "seats"
    nothing_to_undo = True

    def command(self, state: Trip) -> BookSeat:
        return BookSeat(number=state.number)


class BookingMeal(BookingSeat):
    participant = "meals"


class BookTrip(Saga[Trip]):
    steps = (BookingSeat(), BookingMeal())


class Seen(Middleware):
    """The messages of a service, and how many of them came in batches."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.joined = 0

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        self.ids.add(delivery.envelope.message_id)
        self.joined += delivery.part is not None
        return await call_next(delivery)


class Answers(Watcher):
    """How many answers came in batches."""

    joined = 0

    def taken(self, deliveries: Sequence[Delivery]) -> Callable[[], None]:
        self.joined += sum(delivery.part is not None for delivery in deliveries)
        return super().taken(deliveries)


def booking(name: str, seen: Seen) -> Service:
    service = Service(name)
    service.use(seen)

    @service.handles(BookSeat)
    async def book(command: BookSeat) -> Booked | Failure:
        return Failure(reason="full") if command.number % 10 == 0 else Booked(number=command.number)

    return service


async def test_sagas_end_as_without_batches_and_only_configured_queues_are_sent_any(
    amqp_url: str, prefix: str, broker: Broker, tmp_path: Path
) -> None:
    for queue in ("seats", "meals", REPLIES, "orchestrator.main.events"):
        remove_afterwards(broker, f"{prefix}{queue}")
    broker.exchange(f"{prefix}{REPLIES}.owner")
    url = f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}"
    upgrade(url)
    engine = create_async_engine(url)
    client = SagaClient(engine)
    for number in range(40):
        await client.start(BookTrip, Trip(number=number), key=str(number))
    seats, meals, answers = Seen(), Seen(), Answers()
    app = Orchestrator(sagas=[BookTrip])
    app.use(answers)
    messaging = MessagingSettings(broker_url=SecretStr(amqp_url), prefix=prefix, coalesce_to=("seats", REPLIES))
    settings = OrchestratorSettings(database_url=SecretStr(url))
    terminal = [SagaStatus.COMPLETED, SagaStatus.COMPENSATED]

    async def by_status() -> dict[str, int]:
        async with engine.connect() as connection:
            rows = await connection.execute(text("SELECT status, count(*) FROM saga_instance GROUP BY 1"))
            return {row[0]: row[1] for row in rows}

    async def all_ended() -> bool:
        statuses = await by_status()
        return sum(statuses.get(status, 0) for status in terminal) == 40

    # Services first: to a queue that is not there yet nothing is joined, since each command goes a second time.
    parts = (booking("seats", seats), booking("meals", meals), app)
    async with running(*parts, settings=settings, messaging=messaging):
        await eventually(all_ended, "forty sagas have ended", within=PATIENCE)
    ends = await by_status()
    async with engine.connect() as connection:
        commands = (await connection.execute(text("SELECT command_id FROM saga_step"))).all()
    await engine.dispose()

    assert ends == {"completed": 36, "compensated": 4}
    assert seats.joined > 20 and answers.joined > 20, "most of what leaves together is joined"
    assert meals.joined == 0, "nobody has said that meals takes batches"
    assert seats.ids | meals.ids == {command_id for (command_id,) in commands}, "each command keeps its own id"
