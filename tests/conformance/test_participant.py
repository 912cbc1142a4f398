"""A service with a database of its own: each order once, with its work, its answer and what it tells others."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

from messaging import envelope as wire
from messaging.bus import Bus
from messaging.coalescing import Coalescing
from messaging.compose import compose_command
from messaging.context import Context
from messaging.envelope import to_queue
from messaging.memory import MemoryTransport
from messaging.messages import Accepted, Command, Event, Failure, Reply
from messaging.outbox import Relay, RelaySettings
from messaging.service import Service
from messaging.sql import SqlOutbox, tables
from messaging.transport import Binding, Outgoing, QueueSpec
from tests.conformance.sql_backends import Sessions, dialect_of, sessions
from tests.unit.messaging.support import REPLIES, decode_body, noticing, running

__all__ = ["sessions"]

own = MetaData()
charges = Table("charges", own, Column("charge", String, primary_key=True), Column("cents", Integer))

ACTION, UNDO = "saga-1/Charging/action#1", "saga-1/Charging/compensation#1"


class Charged(Reply):
    charge: str


class Charge(Command[Charged]):
    charge: str
    cents: int = 1


class Uncharge(Command[Reply]):
    charge: str


class Paid(Event):
    charge: str


@pytest.fixture
async def with_charges(sessions: Sessions) -> Sessions:
    async with sessions.kw["bind"].begin() as connection:
        await connection.run_sync(own.create_all)
    return sessions


async def charged(sessions: Sessions) -> list[str]:
    async with sessions() as session:
        return list(await session.scalars(select(charges.c.charge).order_by(charges.c.charge)))


def payments(sessions: Sessions) -> Service:
    service = Service("payments", sessions=sessions)

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged | Failure | Accepted:
        await context.session.execute(insert(charges).values(charge=command.charge, cents=command.cents))
        await context.publish(Paid(charge=command.charge))
        if command.cents == 13:
            return Failure(reason="unlucky", code="unlucky")
        if command.cents == 48:
            return Accepted(within=timedelta(hours=48))
        if command.cents == 66:
            raise ValueError("evil")
        return Charged(charge=command.charge)

    @service.handles(Uncharge)
    async def uncharge(command: Uncharge, context: Context) -> Reply:
        await context.session.execute(charges.delete().where(charges.c.charge == command.charge))
        return Reply()

    return service


def as_order(key: str, compensates: str = "") -> dict[str, wire.HeaderValue]:
    return {wire.IDEMPOTENCY_KEY: key, **({wire.COMPENSATES: compensates} if compensates else {})}


async def test_a_repeated_order_is_done_once_and_answered_to_whoever_asks_now(with_charges: Sessions) -> None:
    transport = MemoryTransport()
    await transport.declare([QueueSpec("elsewhere")])
    elsewhere = await transport.subscribe("elsewhere", prefetch_messages=1)
    async with running(payments(with_charges), transport) as asking:
        first = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))
        await asking.send(Charge(charge="c2"), headers=as_order(ACTION), reply_to="elsewhere")
        (again,) = await elsewhere.take(1)

    assert again.envelope.body == first.body
    assert again.envelope.type == "charged"
    assert again.envelope.correlation_id != first.correlation_id
    assert await charged(with_charges) == ["c1"]


async def test_an_order_that_comes_twice_in_batches_is_done_once_and_fails_alone(with_charges: Sessions) -> None:
    headers = [as_order(f"saga-{number}/Charging/action#1") for number in range(4)]
    charged_once, refused, evil, other = (
        compose_command(Charge(charge=f"c{n}", cents=cents), reply_to=REPLIES, headers=headers[n])
        for n, cents in enumerate((1, 13, 66, 1))
    )
    async with running(payments(with_charges)) as asking:
        joining = Coalescing(asking.transport, {"payments"})
        for batch in ([charged_once, charged_once, refused, evil], [charged_once, other, refused]):
            messages = [Outgoing(envelope, to_queue("payments"), may_join=True) for envelope in batch]
            assert await joining.publish(messages, timeout=timedelta(seconds=30)) == [None] * len(batch)
        replies = [await asyncio.wait_for(asking.reply(), 60) for _ in range(7)]

    told = Counter((reply.correlation_id, reply.text_header(wire.OUTCOME)) for reply in replies)
    assert told == {
        (charged_once.message_id, "success"): 3,
        (refused.message_id, "failure"): 2,
        (evil.message_id, "retry"): 1,
        (other.message_id, "success"): 1,
    }
    assert await charged(with_charges) == ["c0", "c1", "c3"]


async def test_a_stored_refusal_is_repeated_with_its_code(with_charges: Sessions) -> None:
    async with running(payments(with_charges)) as asking:
        for _ in range(2):
            reply = await asking.ask(Charge(charge="c1", cents=13), headers=as_order(ACTION))
            assert (reply.text_header(wire.OUTCOME), reply.text_header(wire.ERROR_CODE)) == ("failure", "unlucky")
            assert decode_body(Failure, reply.body).reason == "unlucky"

    assert await charged(with_charges) == ["c1"], "a refusal is an answer: what was done with it stays done"


async def test_an_order_whose_answer_comes_later_is_accepted_and_done_once(with_charges: Sessions) -> None:
    async with running(payments(with_charges)) as asking:
        for _ in range(2):
            reply = await asking.ask(Charge(charge="c1", cents=48), headers=as_order(ACTION))
            assert reply.text_header(wire.OUTCOME) == "accepted"
            assert reply.headers[wire.DEADLINE_SECONDS] == 48 * 3600

    assert await charged(with_charges) == ["c1"]


async def test_the_undo_of_an_order_whose_answer_is_still_to_come_is_carried_out(with_charges: Sessions) -> None:
    async with running(payments(with_charges)) as asking:
        await asking.ask(Charge(charge="c1", cents=48), headers=as_order(ACTION))
        undone = await asking.ask(Uncharge(charge="c1"), headers=as_order(UNDO, ACTION))

    assert undone.text_header(wire.ERROR_CODE) == ""
    assert await charged(with_charges) == []


async def test_a_handler_that_raises_leaves_nothing_and_may_be_asked_again(with_charges: Sessions) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    mailer = Service("mailer")

    @mailer.subscribes(Paid)
    async def paid(event: Paid) -> None:
        told.put_nowait(event.charge)

    transport = MemoryTransport()
    async with running(mailer, transport), running(payments(with_charges), transport) as asking:
        raised = await asking.ask(Charge(charge="c1", cents=66), headers=as_order(ACTION))
        assert await charged(with_charges) == []
        done = await asking.ask(Charge(charge="c2"), headers=as_order(ACTION))
        assert await told.get() == "c2"

    assert (raised.text_header(wire.OUTCOME), raised.text_header(wire.ERROR_CODE)) == ("retry", "ValueError")
    assert done.text_header(wire.OUTCOME) == "success"
    assert told.empty()


async def test_the_barrier_holds_for_whole_services(with_charges: Sessions) -> None:
    async with running(payments(with_charges)) as asking:
        undo = await asking.ask(Uncharge(charge="c1"), headers=as_order(UNDO, ACTION))
        late = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))

        assert (undo.text_header(wire.OUTCOME), undo.text_header(wire.ERROR_CODE)) == ("success", "nothing-to-undo")
        assert (late.text_header(wire.OUTCOME), late.text_header(wire.ERROR_CODE)) == ("failure", "undone")
        assert await charged(with_charges) == []

        await asking.ask(Charge(charge="c2"), headers=as_order("saga-2/Charging/action#1"))
        undone = await asking.ask(
            Uncharge(charge="c2"),
            headers=as_order("saga-2/Charging/compensation#1", "saga-2/Charging/action#1"),
        )
        assert undone.text_header(wire.ERROR_CODE) == ""
        assert await charged(with_charges) == []


async def test_copies_of_one_order_all_at_once_do_it_once_and_are_all_answered(with_charges: Sessions) -> None:
    async with running(payments(with_charges)) as asking:
        sent = [await asking.send(Charge(charge="c1"), headers=as_order(ACTION)) for _ in range(10)]
        replies = [await asking.reply() for _ in sent]

    assert {reply.text_header(wire.OUTCOME) for reply in replies} == {"success"}
    assert await charged(with_charges) == ["c1"]


async def test_an_event_is_handled_once_for_each_service(with_charges: Sessions) -> None:
    service, handled, handlings = Service("mailer", sessions=with_charges), asyncio.Queue[str](), itertools.count()

    @service.subscribes(Paid)
    async def paid(event: Paid, context: Context) -> None:
        await context.session.execute(insert(charges).values(charge=f"{event.charge}-{next(handlings)}"))
        handled.put_nowait(event.charge)

    async with running(service) as asking:
        first = await asking.publish(Paid(charge="a"))
        assert await handled.get() == "a"
        await asking.send_raw(first)
        await asking.publish(Paid(charge="last"))
        assert await handled.get() == "last"

    assert await charged(with_charges) == ["a-0", "last-1"]


async def test_a_handler_must_not_commit(with_charges: Sessions) -> None:
    service = Service("payments", sessions=with_charges)

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged:
        await context.session.execute(insert(charges).values(charge=command.charge))
        await context.session.commit()
        return Charged(charge="")

    async with running(service) as asking:
        reply = await asking.ask(Charge(charge="c1"))

    assert "must not commit" in decode_body(Failure, reply.body).reason
    assert await charged(with_charges) == []


async def test_a_handler_that_rolls_back_has_failed_and_left_no_claim(with_charges: Sessions) -> None:
    service, rolls_back = Service("payments", sessions=with_charges), [True]

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged:
        if rolls_back:
            await context.session.rollback()
        return Charged(charge="")

    async with running(service) as asking:
        first = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))
        rolls_back.clear()
        second = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))

    assert [reply.text_header(wire.OUTCOME) for reply in (first, second)] == ["retry", "success"]


async def test_a_plain_service_works_in_a_blocking_session(with_charges: Sessions) -> None:
    url = with_charges.kw["bind"].url
    driver = "postgresql+psycopg" if dialect_of(with_charges) == "postgresql" else "sqlite"
    engine = create_engine(url.set(drivername=driver))
    service = Service("payments", sessions=sessionmaker(engine))

    @service.handles(Charge)
    def charge(command: Charge, context: Context[Session]) -> Charged:
        context.session.execute(insert(charges).values(charge=command.charge))
        context.publish(Paid(charge=command.charge))
        if command.cents == 66:
            raise ValueError("evil")
        return Charged(charge=command.charge)

    async with running(service) as asking:
        await asking.ask(Charge(charge="c0", cents=66), headers=as_order(ACTION))
        for _ in range(2):
            reply = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))
    engine.dispose()

    assert decode_body(Charged, reply.body).charge == "c1"
    assert await charged(with_charges) == ["c1"]


async def test_a_database_that_is_away_pauses_the_service_and_is_logged_once(
    with_charges: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 3

    class AwaySession(AsyncSession):
        async def run_sync(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal failures
            if failures:
                failures -= 1
                raise OperationalError("", {}, OSError(), connection_invalidated=True)
            return await super().run_sync(fn, *args, **kwargs)

    away = async_sessionmaker(with_charges.kw["bind"], class_=AwaySession)
    service = payments(away)
    with caplog.at_level(logging.WARNING):
        async with running(service) as asking:
            reply = await asking.ask(Charge(charge="c1"), headers=as_order(ACTION))

    assert reply.text_header(wire.OUTCOME) == "success"
    assert sum("cannot be used" in message for message in caplog.messages) == 1
    assert sum("can be used again" in message for message in caplog.messages) == 1


async def test_a_missing_table_is_an_outage_and_not_the_handlers_fault(
    with_charges: Sessions,
) -> None:
    engine = with_charges.kw["bind"]
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE message_inbox RENAME TO not_yet_migrated"))
    async with running(payments(with_charges)) as asking:
        with noticing("messaging.outage", "cannot be used") as paused:
            await asking.send(Charge(charge="c1"), headers=as_order(ACTION))
            await asyncio.wait_for(paused.wait(), 30)
        async with engine.begin() as connection:
            await connection.execute(text("ALTER TABLE not_yet_migrated RENAME TO message_inbox"))
        reply = await asking.reply()

    assert reply.text_header(wire.OUTCOME) == "success"


async def test_tables_may_stand_in_a_schema(postgres_database: str) -> None:
    engine = create_async_engine(postgres_database)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA bus"))
        await connection.run_sync(tables("bus").metadata.create_all)
        await connection.run_sync(own.create_all)
    service = Service("payments", sessions=async_sessionmaker(engine), schema="bus")

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged:
        await context.publish(Paid(charge=command.charge))
        return Charged(charge=command.charge)

    async with running(service) as asking:
        reply = await asking.ask(Charge(charge="c1"))
    await engine.dispose()

    assert reply.text_header(wire.OUTCOME) == "success"


async def test_a_copy_of_an_order_under_way_comes_again_and_is_answered(with_charges: Sessions) -> None:
    if dialect_of(with_charges) == "sqlite":
        pytest.skip("one writer at a time: the copy waits in the database")
    service, started, may_end = Service("payments", sessions=with_charges), asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    @service.handles(Charge)
    async def charge(command: Charge, context: Context) -> Charged:
        runs.append(command.charge)
        await context.session.execute(text("SET LOCAL lock_timeout = '60s'"))
        started.set()
        await may_end.wait()
        return Charged(charge="first")

    async with running(service) as asking:
        await asking.send(Charge(charge="c1"), headers=as_order(ACTION))
        await started.wait()
        with noticing("messaging.processing", "still being worked on") as put_off:
            logging.getLogger("messaging.processing").setLevel(logging.INFO)
            await asking.send(Charge(charge="c2"), headers=as_order(ACTION))
            await asyncio.wait_for(put_off.wait(), 30)
        may_end.set()
        answers = [await asking.reply() for _ in range(2)]

    assert [decode_body(Charged, answer.body).charge for answer in answers] == ["first", "first"]
    assert runs == ["c1"]


async def test_what_a_bus_writes_in_a_transaction_leaves_with_it(with_charges: Sessions) -> None:
    transport = MemoryTransport()
    await transport.declare([QueueSpec("payments"), QueueSpec("mailer", (Binding("paid"),))])
    mailer = await transport.subscribe("mailer", prefetch_messages=10)
    relay = Relay(SqlOutbox(with_charges), transport, RelaySettings(poll=timedelta(hours=1)))
    relaying = asyncio.create_task(relay.run())
    async with Bus(transport, relay=relay) as bus:
        async with with_charges() as session:
            await bus.publish(Paid(charge="rolled back"), session=session)
            await session.rollback()
        async with with_charges() as session, session.begin():
            await session.execute(insert(charges).values(charge="c1"))
            await bus.publish(Paid(charge="c1"), session=session)
            assert await mailer.backlog() == 0
        (told,) = await asyncio.wait_for(mailer.take(1), 30)
    await mailer.ack([told])
    relay.stop()
    await relaying

    assert told.envelope.body == b'{"charge":"c1"}'
    assert await mailer.backlog() == 0
