"""Messages of one ordering key leave one after the other; every other message goes its own way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import delete

from messaging import ids
from messaging.envelope import Envelope, to_queue
from messaging.errors import OutboxRefused, PublishError, Unroutable
from messaging.outbox import PutOff, Relay, RelaySettings, relaying
from messaging.sql import SqlOutbox, tables, write_outgoing, writing
from messaging.transport import Outgoing
from tests.conformance.sql_backends import Sessions, dialect_of, sessions
from tests.conformance.test_outbox import LEASE, SECOND, Broker, Clock, clock, relay, stored, write

__all__ = ["clock", "sessions"]


def of_key(key: str, number: int) -> Outgoing:
    return Outgoing(Envelope(f"{key}-{number}", b"{}", "paid"), to_queue("mailer"), ordering_key=key)


def plain(number: int) -> Outgoing:
    return Outgoing(Envelope(f"plain-{number}", b"{}", "paid"), to_queue("mailer"))


class WatchfulBroker(Broker):
    """Sees to it that no two messages of a key are under way together; may keep one unconfirmed for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: list[str] = []
        self.slow: dict[str, asyncio.Event] = {}

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        keys = [message.ordering_key for message in messages if message.ordering_key]
        assert len({*keys, *self.under_way}) == len(keys) + len(self.under_way), "one of a key at a time"
        self.under_way += keys
        outcomes = await super().publish(messages, timeout=timeout)
        for message in messages:
            if slow := self.slow.get(message.envelope.message_id):
                await slow.wait()
        self.under_way = [key for key in self.under_way if key not in keys]
        return outcomes

    def of(self, key: str) -> list[str]:
        return [message_id for message_id in self.ids if message_id.startswith(f"{key}-")]


async def drained(mine: Relay) -> None:
    while await mine.drain_once():
        pass


async def test_messages_of_a_key_leave_one_at_a_time_in_the_order_they_were_written(
    sessions: Sessions, clock: Clock
) -> None:
    broker = WatchfulBroker()
    for number in range(10):
        await write(sessions, of_key("ann", number), of_key("bob", number), plain(number))

    await drained(relay(sessions, broker, clock, batch=8))

    assert broker.of("ann") == [f"ann-{number}" for number in range(10)]
    assert broker.of("bob") == [f"bob-{number}" for number in range(10)]
    assert len(broker.ids) == 30 and await stored(sessions) == 0


async def test_the_order_is_that_of_the_database_whatever_the_writers_clocks_say(
    sessions: Sessions, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker, backwards = Broker(), _falling_ids()
    monkeypatch.setattr(writing, "new_id", lambda: next(backwards))
    await write(sessions, of_key("ann", 0), of_key("ann", 1))
    for number in range(2, 5):
        await write(sessions, of_key("ann", number))

    await drained(relay(sessions, broker, clock))

    assert broker.ids == [f"ann-{number}" for number in range(5)]


def _falling_ids() -> Iterator[str]:
    return iter([ids.new_id() for _ in range(9)][::-1])


async def test_what_cannot_be_sent_holds_up_its_own_key_and_no_other(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    broker.answers["ann-1"] = Unroutable("ann-1", "queue 'mailer'")
    for number in range(3):
        await write(sessions, of_key("ann", number), of_key("bob", number), plain(number))
    mine = relay(sessions, broker, clock)

    await drained(mine)
    assert sorted(broker.ids) == sorted(
        ["ann-0", "ann-1", *(f"{who}-{number}" for who in ("bob", "plain") for number in range(3))]
    )
    await write(sessions, of_key("ann", 3))
    assert await mine.drain_once() == 0, "nothing overtakes what backs off"

    broker.answers.clear()
    clock.passes(2 * SECOND)
    await drained(mine)
    assert broker.ids[-3:] == ["ann-1", "ann-2", "ann-3"]
    assert await stored(sessions) == 0


async def test_a_key_that_another_relay_is_sending_is_left_to_it(sessions: Sessions, clock: Clock) -> None:
    broker = Broker()
    await write(sessions, of_key("ann", 0), of_key("bob", 0))
    taken = (await SqlOutbox(sessions).claim(now=clock(), lease_until=clock() + LEASE, limit=1)).rows
    await write(sessions, of_key("ann", 1), of_key("bob", 1))

    await drained(relay(sessions, broker, clock))
    assert broker.ids == ["bob-0", "bob-1"]

    clock.passes(LEASE)
    await drained(relay(sessions, broker, clock))
    assert broker.ids[2:] == ["ann-0", "ann-1"]
    assert [row.outgoing for row in taken] == [of_key("ann", 0)]


async def test_a_confirm_that_takes_long_holds_up_its_own_key_alone(sessions: Sessions) -> None:
    broker = WatchfulBroker()
    slow = broker.slow["ann-0"] = asyncio.Event()
    for number in range(3):
        await write(sessions, of_key("ann", number), of_key("bob", number))
    settings = RelaySettings(poll=timedelta(hours=1), batch=4)
    async with relaying(Relay(SqlOutbox(sessions), broker, settings)):  # type: ignore[arg-type]
        async with asyncio.timeout(20):
            while broker.of("bob") != ["bob-0", "bob-1", "bob-2"]:
                broker.arrived.clear()
                await broker.arrived.wait()
            assert broker.of("ann") == ["ann-0"]
            slow.set()
            while broker.of("ann") != ["ann-0", "ann-1", "ann-2"]:
                broker.arrived.clear()
                await broker.arrived.wait()


async def test_what_commits_late_before_a_row_that_backs_off_turns_nothing_around(
    sessions: Sessions, clock: Clock
) -> None:
    broker, rows = Broker(), SqlOutbox(sessions)
    await write(sessions, *(of_key("ann", number) for number in range(3)))
    middle = (await rows.claim(now=clock(), lease_until=clock(), limit=10)).rows[1]
    await rows.settle([], [PutOff(middle.id, clock() + LEASE, "away")], now=clock())

    await drained(relay(sessions, broker, clock))

    assert broker.ids == ["ann-0", "ann-1", "ann-2"]


async def test_what_waits_for_its_turn_is_looked_at_once_until_it_comes(sessions: Sessions, clock: Clock) -> None:
    broker, rows = Broker(), SqlOutbox(sessions)
    await write(sessions, *(of_key("ann", number) for number in range(6)))
    (held, *_) = (await rows.claim(now=clock(), lease_until=clock() + LEASE, limit=1)).rows
    looks = [await rows.claim(now=clock(), lease_until=clock() + LEASE, limit=2) for _ in range(4)]

    assert [(len(look.rows), look.more) for look in looks] == [(0, True), (0, True), (0, False), (0, False)]
    await rows.settle([held.id], [], now=clock())
    await drained(relay(sessions, broker, clock))
    assert broker.ids == [f"ann-{number}" for number in range(1, 6)]


async def test_what_waits_for_a_row_that_is_being_deleted_stays_due(sessions: Sessions, clock: Clock) -> None:
    if dialect_of(sessions) == "sqlite":
        pytest.skip("one writer at a time: nobody looks while another deletes")
    outbox, rows = tables().outbox, SqlOutbox(sessions)
    await write(sessions, of_key("ann", 0), of_key("ann", 1))
    (first,) = (await rows.claim(now=clock(), lease_until=clock() + LEASE, limit=1)).rows

    async with sessions.begin() as session:
        await session.execute(delete(outbox).where(outbox.c.id == first.id))
        assert not (await rows.claim(now=clock(), lease_until=clock() + LEASE, limit=10)).rows

    assert (await rows.claim(now=clock(), lease_until=clock() + LEASE, limit=10)).rows


async def test_what_waits_for_a_row_that_somebody_deletes_leaves_within_six_minutes(
    sessions: Sessions, clock: Clock
) -> None:
    broker, outbox = Broker(), tables().outbox
    broker.answers["ann-0"] = Unroutable("ann-0", "queue 'mailer'")
    await write(sessions, of_key("ann", 0))
    mine = relay(sessions, broker, clock)
    await mine.drain_once()
    await write(sessions, of_key("ann", 1))
    await mine.drain_once()

    async with sessions.begin() as session:
        await session.execute(delete(outbox).where(outbox.c.message_id == "ann-0"))
    clock.passes(timedelta(minutes=6))
    await drained(mine)

    assert broker.ids == ["ann-0", "ann-1"]


async def test_a_relay_that_is_told_to_stop_sends_no_more_of_a_key_and_gives_the_rest_back(sessions: Sessions) -> None:
    broker = WatchfulBroker()
    slow = broker.slow["ann-0"] = asyncio.Event()
    await write(sessions, of_key("ann", 0), of_key("ann", 1))
    mine = Relay(SqlOutbox(sessions), broker)  # type: ignore[arg-type]
    running = asyncio.create_task(mine.run())
    await asyncio.wait_for(broker.arrived.wait(), 30)

    mine.stop()
    slow.set()
    await asyncio.wait_for(running, 30)
    assert broker.ids == ["ann-0"]

    assert await Relay(SqlOutbox(sessions), broker).drain_once() == 1  # type: ignore[arg-type]
    assert broker.ids == ["ann-0", "ann-1"]


async def test_a_relay_that_wakes_up_after_its_lease_repeats_messages_and_turns_none_around(
    sessions: Sessions, clock: Clock
) -> None:
    broker = Broker()
    asleep = WatchfulBroker()
    awake = asleep.slow["ann-0"] = asyncio.Event()
    for number in range(3):
        await write(sessions, of_key("ann", number))
    sleeper = asyncio.create_task(relay(sessions, asleep, clock).drain_once())
    await asyncio.wait_for(asleep.arrived.wait(), 30)

    clock.passes(LEASE)
    await drained(relay(sessions, broker, clock))
    awake.set()
    await sleeper

    assert broker.ids == asleep.ids == ["ann-0", "ann-1", "ann-2"]
    assert await stored(sessions) == 0


async def test_relays_at_once_keep_the_order_of_each_of_many_keys(sessions: Sessions, clock: Clock) -> None:
    broker = WatchfulBroker()
    keys = [f"key{number}" for number in range(12)]
    for number in range(6):
        await write(sessions, *(of_key(key, number) for key in keys))
    relays = [relay(sessions, broker, clock, batch=7) for _ in range(3)]

    while any(await asyncio.gather(*(each.drain_once() for each in relays))):
        pass

    for key in keys:
        assert broker.of(key) == [f"{key}-{number}" for number in range(6)]
    assert len(broker.ids) == 72


async def test_a_key_that_no_row_can_hold_is_refused(sessions: Sessions) -> None:
    with pytest.raises(OutboxRefused, match="at most 255 characters"):
        await write(sessions, of_key("k" * 256, 1))
    async with sessions() as session:
        with pytest.raises(OutboxRefused, match="no NUL"):
            await session.run_sync(lambda sync: write_outgoing(sync, [of_key("a\0b", 1)]))
