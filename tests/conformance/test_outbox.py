"""What an outbox and its relay keep, over every database that holds one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from messaging.envelope import Destination, Envelope, to_queue, to_reply, to_subscribers
from messaging.errors import NotConfirmed, PublishError, Unroutable
from messaging.memory import MemoryTransport
from messaging.middleware import Middleware
from messaging.outbox import Claimed, PutOff, Relay, RelaySettings
from messaging.outbox_age import look
from messaging.service import Service
from messaging.serving import serving
from messaging.sql import SqlOutbox, tables, write_outgoing
from messaging.sql.writing import after_commit, write_outgoing_async
from messaging.transport import Outgoing, Promises
from tests.conformance.sql_backends import Sessions, sessions

__all__ = ["sessions"]

SECOND = timedelta(seconds=1)
LEASE = timedelta(seconds=30)


class Broker:
    """Takes what it is told to take, and remembers everything that was sent to it."""

    def __init__(self, survives_restart: bool = True) -> None:
        self.promises = Promises(
            survives_restart,
            keeps_order=True,
            broadcasts=True,
            delays=True,
            detects_unroutable=True,
            dead_letters=True,
        )
        self.received: list[Outgoing] = []
        self.answers: dict[str, PublishError] = {}
        self.away = False
        self.arrived = asyncio.Event()

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        if self.away:
            return [NotConfirmed(m.envelope.message_id, str(m.destination), "away") for m in messages]
        self.received += messages
        self.arrived.set()
        return [self.answers.get(message.envelope.message_id) for message in messages]

    @property
    def ids(self) -> list[str]:
        return [message.envelope.message_id for message in self.received]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def passes(self, time: timedelta) -> None:
        self.now += time


def message(number: int = 1, **fields: object) -> Outgoing:
    return Outgoing(Envelope(f"m-{number}", b'{"name":"Zo\xc3\xab"}', "paid"), to_queue("mailer"))


async def write(sessions: Sessions, *messages: Outgoing) -> None:
    async with sessions() as session, session.begin():
        await write_outgoing_async(session, messages)


async def stored(sessions: Sessions) -> int:
    async with sessions() as session:
        return len((await session.execute(select(tables().outbox.c.id))).all())


def relay(sessions: Sessions, broker: Broker, clock: Clock, **settings: object) -> Relay:
    return Relay(SqlOutbox(sessions), broker, RelaySettings(**settings), clock=clock)  # type: ignore[arg-type]


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.passes(timedelta(minutes=1))  # what is written from now on is due, however slow the machine
    return clock


@pytest.mark.parametrize(
    "destination",
    [to_queue("mailer"), to_subscribers("paid"), to_reply("somebody.replies"), Destination("k", "x", kind="fanout")],
    ids=str,
)
async def test_a_message_leaves_as_it_was_written(sessions: Sessions, clock: Clock, destination: Destination) -> None:
    envelope = Envelope(
        "m-1",
        '{"name":"Zoë 😀"}'.encode(),
        "paid",
        correlation_id="flow-1",
        reply_to="replies",
        timestamp=datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC),
        app_id="shop",
        headers={"text": "ü", "number": 1, "share": 0.5, "yes": True, "none": None},
    )
    broker = Broker()
    await write(sessions, Outgoing(envelope, destination))

    await relay(sessions, broker, clock).drain_once()

    assert broker.received == [Outgoing(envelope, destination)]
    assert await stored(sessions) == 0


async def test_what_is_rolled_back_never_leaves(sessions: Sessions, clock: Clock) -> None:
    async with sessions() as session:
        await write_outgoing_async(session, [message()])
        await session.rollback()

    assert await relay(sessions, Broker(), clock).drain_once() == 0


async def test_messages_leave_in_the_order_they_were_written(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    await write(sessions, *(message(number) for number in range(50)))

    await relay(sessions, broker, clock).drain_once()

    assert broker.ids == [f"m-{number}" for number in range(50)]


async def test_a_relay_that_died_after_its_claim_is_taken_over_when_its_lease_ends(
    sessions: Sessions, clock: Clock
) -> None:
    broker = Broker()
    await write(sessions, message())
    await SqlOutbox(sessions).claim(now=clock(), lease_until=clock() + LEASE, limit=10)

    assert await relay(sessions, broker, clock).drain_once() == 0
    clock.passes(LEASE)
    assert await relay(sessions, broker, clock).drain_once() == 1
    assert broker.ids == ["m-1"]


async def test_a_relay_that_died_after_publishing_sends_the_same_message_again(
    sessions: Sessions, clock: Clock
) -> None:
    class DiesBeforeMarking(SqlOutbox):
        async def settle(self, sent: Sequence[str], put_off: Sequence[PutOff], *, now: datetime) -> None:
            raise ConnectionResetError

    broker = Broker()
    await write(sessions, message())
    with pytest.raises(ConnectionResetError):
        await Relay(DiesBeforeMarking(sessions), broker, clock=clock).drain_once()  # type: ignore[arg-type]

    clock.passes(LEASE)
    await relay(sessions, broker, clock).drain_once()

    assert broker.ids == ["m-1", "m-1"]
    assert await stored(sessions) == 0


async def test_an_unsendable_message_backs_off_alone_and_says_why(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    broker.answers["m-1"] = Unroutable("m-1", "queue 'mailer'")
    await write(sessions, message(1), message(2))
    mine = relay(sessions, broker, clock)

    await mine.drain_once()
    assert await mine.drain_once() == 0
    clock.passes(2 * SECOND)
    await mine.drain_once()
    clock.passes(SECOND)
    assert await mine.drain_once() == 0, "the second wait is longer than the first"

    assert broker.ids == ["m-1", "m-2", "m-1"]
    async with sessions() as session:
        row = (await session.execute(select(tables().outbox))).one()
    assert row.send_attempts == 2
    assert "no queue takes it" in row.last_error


async def test_two_relays_never_send_what_the_other_has_claimed(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    await write(sessions, *(message(number) for number in range(100)))
    relays = [relay(sessions, broker, clock, batch=10) for _ in range(2)]

    while any(await asyncio.gather(*(each.drain_once() for each in relays))):
        pass

    assert sorted(broker.ids) == sorted(f"m-{number}" for number in range(100))


async def test_a_nudge_after_commit_sends_at_once(sessions: Sessions) -> None:
    broker = Broker()
    mine = Relay(SqlOutbox(sessions), broker, RelaySettings(poll=timedelta(hours=1)))  # type: ignore[arg-type]
    running = asyncio.create_task(mine.run())
    async with sessions() as session, session.begin():
        await write_outgoing_async(session, [message()])
        after_commit(session, mine.nudge)

    await asyncio.wait_for(broker.arrived.wait(), 30)
    mine.stop()
    await asyncio.wait_for(running, 30)
    assert await stored(sessions) == 0


class Unreliable:
    """An outbox whose database is away for the first calls."""

    def __init__(self, inner: SqlOutbox, failures: int) -> None:
        self._inner, self.failures = inner, failures

    def _fail(self) -> None:
        if self.failures:
            self.failures -= 1
            raise OperationalError("", {}, Exception("away"))

    async def claim(self, *, now: datetime, lease_until: datetime, limit: int) -> Claimed:
        self._fail()
        return await self._inner.claim(now=now, lease_until=lease_until, limit=limit)

    async def settle(self, sent: Sequence[str], put_off: Sequence[PutOff], *, now: datetime) -> None:
        await self._inner.settle(sent, put_off, now=now)

    async def release(self, *, now: datetime) -> None:
        self._fail()
        await self._inner.release(now=now)


async def test_a_database_that_is_away_delays_the_relay_and_does_not_end_it(sessions: Sessions) -> None:
    broker = Broker()
    await write(sessions, message())
    mine = Relay(Unreliable(SqlOutbox(sessions), failures=2), broker)  # type: ignore[arg-type]
    running = asyncio.create_task(mine.run())

    await asyncio.wait_for(broker.arrived.wait(), 30)
    mine.stop()
    await asyncio.wait_for(running, 30)
    assert await stored(sessions) == 0


async def test_a_broker_that_was_away_gets_everything_once_it_is_back(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    broker.away = True
    await write(sessions, message(1), message(2))
    mine = relay(sessions, broker, clock)
    for _ in range(20):
        await mine.drain_once()
        clock.passes(timedelta(minutes=1))

    broker.away = False
    clock.passes(timedelta(seconds=11))
    await mine.drain_once()

    assert sorted(broker.ids) == ["m-1", "m-2"]


async def test_over_a_transport_that_dies_with_the_process_a_message_counts_when_it_is_handled(
    sessions: Sessions,
) -> None:
    broker = Broker(survives_restart=False)
    await write(sessions, message())
    # What the process before had claimed died with it, so it is due again at once.
    now = datetime.now(UTC) + SECOND
    assert (await SqlOutbox(sessions).claim(now=now, lease_until=now + timedelta(days=1), limit=10)).rows

    mine = Relay(SqlOutbox(sessions), broker)  # type: ignore[arg-type]
    running = asyncio.create_task(mine.run())
    await asyncio.wait_for(broker.arrived.wait(), 30)
    mine.stop()
    await running

    assert broker.received == [replace(message(), until_handled=True)]


async def test_writing_through_a_plain_connection_works_as_well(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    engine = sessions.kw["bind"]
    async with engine.begin() as connection:
        await write_outgoing_async(connection, [message(1)])
        await connection.run_sync(lambda sync: write_outgoing(sync, [message(2)]))

    await relay(sessions, broker, clock).drain_once()

    assert broker.ids == ["m-1", "m-2"]


class Shown(Middleware):
    """Remembers what it is shown."""

    def __init__(self) -> None:
        self.ages: list[tuple[str, float]] = []
        self.was_shown = asyncio.Event()

    def show_outbox(self, name: str, oldest_seconds: float) -> None:
        self.ages.append((name, oldest_seconds))
        self.was_shown.set()


async def test_the_age_of_the_oldest_message_is_shown(sessions: Sessions) -> None:
    shown, rows, clock = Shown(), SqlOutbox(sessions), Clock()
    await look("payments", rows, [shown], clock)
    await write(sessions, message(1))
    oldest = await rows.oldest()
    await write(sessions, message(2))
    assert oldest is not None and await rows.oldest() == oldest

    await look("payments", rows, [shown], lambda: oldest + 90 * SECOND)

    assert shown.ages == [("payments", 0), ("payments", 90)]


async def test_of_a_database_that_is_away_the_last_age_stands() -> None:
    class Away:
        async def oldest(self) -> datetime | None:
            raise OSError("away")

    shown = Shown()
    await look("payments", Away(), [shown])
    assert shown.ages == []


async def test_a_service_shows_the_age_of_its_outbox_to_what_measures_it(sessions: Sessions) -> None:
    shown, service = Shown(), Service("payments", sessions=sessions)
    transport = MemoryTransport()
    await transport.open()
    async with serving([service], transport, middleware=[Middleware(), shown]):
        async with asyncio.timeout(60):
            await shown.was_shown.wait()
    await transport.close()
    assert shown.ages == [("payments", 0)]
