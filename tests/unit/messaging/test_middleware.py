"""What stands around sending and handling, and what becomes of a message when it raises."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from messaging import envelope as wire
from messaging.blocking import BlockingBus
from messaging.bus import Bus
from messaging.codec import Limits
from messaging.context import Context
from messaging.errors import CommandRefused, DecodeError, HandlerDefinitionError, NotPassedOn
from messaging.handler_classes import CommandHandler, EventHandler
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.middleware import (
    DeliverNext,
    HandleNext,
    Middleware,
    Outcome,
    PublishNext,
    Received,
    Result,
    Settled,
)
from messaging.retry import Retry
from messaging.service import Service
from messaging.serving import serving
from messaging.settings import MessagingSettings
from messaging.sql import tables
from messaging.transport import DEAD_LETTER_REASON, Binding, Delivery, Outgoing, QueueSpec
from tests.unit.messaging.support import decode_body, running

SOON = Retry(max_attempts=2, backoff=timedelta(0))
tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Charged(Reply):
    charge: str = ""


class Charge(Command[Charged]):
    charge: str = "c1"


class Paid(Event):
    charge: str = "c1"


class Told(Middleware):
    """Writes down what it stands around."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        self.seen.append(f"{self.name} publishes {outgoing.envelope.type}")
        await call_next(outgoing)

    async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
        self.seen.append(f"{self.name} before {received.handler.rpartition('.')[2]}")
        result = await call_next(received)
        self.seen.append(f"{self.name} after {type(result).__name__}")
        return result

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        self.seen.append(f"{self.name} takes {delivery.envelope.type}")
        settled = await call_next(delivery)
        self.seen.append(f"{self.name} told {settled.outcome}")
        return settled


class Outcomes(Middleware):
    """Keeps what became of each delivery."""

    def __init__(self) -> None:
        self.settled: asyncio.Queue[Settled] = asyncio.Queue()

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        settled = await call_next(delivery)
        self.settled.put_nowait(settled)
        return settled

    async def next(self) -> Outcome:
        return (await asyncio.wait_for(self.settled.get(), 30)).outcome


class Raises(Middleware):
    """Raises where it is told to, as often as it is told to."""

    def __init__(self, where: str, times: int = 1) -> None:
        self.where, self.times = where, times

    def _raise(self, where: str) -> None:
        if where == self.where and self.times:
            self.times -= 1
            raise ValueError(f"raised {where}")

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        self._raise("publishing")
        await call_next(outgoing)

    async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
        self._raise("before the handler")
        result = await call_next(received)
        self._raise("after the handler")
        return result

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        self._raise("before the delivery")
        settled = await call_next(delivery)
        self._raise("after the delivery")
        return settled


class ChargeHandler(CommandHandler[Charge]):
    def handle(self, command: Charge, context: Context[None]) -> Charged:
        context.publish(Paid(charge=command.charge))
        return Charged(charge=f"{command.charge} for {tenant.get()}")


async def charge_async(command: Charge, context: Context[None]) -> Charged:
    await context.publish(Paid(charge=command.charge))
    return Charged(charge=f"{command.charge} for {tenant.get()}")


def charge_plain(command: Charge, context: Context[None]) -> Charged:
    context.publish(Paid(charge=command.charge))
    return Charged(charge=f"{command.charge} for {tenant.get()}")


def charge_in_session(command: Charge, context: Context[Session]) -> Charged:
    assert context.session.in_transaction()
    context.publish(Paid(charge=command.charge))
    return Charged(charge=f"{command.charge} for {tenant.get()}")


@pytest.fixture
def blocking_sessions(tmp_path: Path) -> sessionmaker[Session]:
    engine = create_engine(f"sqlite:///{tmp_path / 'bus.db'}")
    tables().metadata.create_all(engine)
    return sessionmaker(engine)


@pytest.fixture(params=["async", "plain", "class", "plain with a session"])
def payments(request: pytest.FixtureRequest, blocking_sessions: sessionmaker[Session]) -> Service:
    with_session = request.param == "plain with a session"
    service = Service("payments", sessions=blocking_sessions if with_session else None, retry=SOON)
    if request.param == "class":
        service.register(ChargeHandler())
    elif request.param == "async":
        service.handles(Charge)(charge_async)
    else:
        service.add(Charge, charge_in_session if with_session else charge_plain)
    return service


async def test_the_first_one_is_outermost_everywhere(payments: Service) -> None:
    seen: list[str] = []
    payments.use(Told("outer", seen), Told("inner", seen))
    async with running(payments) as asking:
        reply = await asking.ask(Charge())

    name = payments.handlers[0].name.rpartition(".")[2]
    assert reply.text_header(wire.OUTCOME) == wire.SUCCESS
    assert seen == [
        "outer takes charge",
        "inner takes charge",
        f"outer before {name}",
        f"inner before {name}",
        "inner after Charged",
        "outer after Charged",
        "outer publishes paid",
        "inner publishes paid",
        "inner told success",
        "outer told success",
    ]


async def test_what_it_sets_in_a_context_variable_the_handler_sees(payments: Service) -> None:
    class Tenant(Middleware):
        async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
            tenant.set(str(received.envelope.headers["tenant"]))
            return await call_next(received)

    payments.use(Tenant())
    async with running(payments) as asking:
        reply = await asking.ask(Charge(), headers={"tenant": "ann"})

    assert decode_body(Charged, reply.body).charge == "c1 for ann"


async def test_middleware_runs_in_the_services_loop_wherever_its_handlers_run(payments: Service) -> None:
    threads: list[int] = []

    class Where(Middleware):
        async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
            threads.append(threading.get_ident())
            return await call_next(received)

        async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
            threads.append(threading.get_ident())
            await call_next(outgoing)

    payments.use(Where())
    async with running(payments) as asking:
        await asking.ask(Charge())

    assert threads == [threading.get_ident()] * 2


@pytest.mark.parametrize("where", ["before the delivery", "before the handler", "after the handler", "publishing"])
async def test_what_it_raises_counts_as_raised_by_the_handler(payments: Service, where: str) -> None:
    payments.use(Raises(where))
    async with running(payments) as asking:
        first = await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "k"})
        second = await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "k"})

    assert (first.text_header(wire.OUTCOME), first.text_header(wire.ERROR_CODE)) == (wire.RETRY, "ValueError")
    assert second.text_header(wire.OUTCOME) == wire.SUCCESS


async def test_what_it_raises_after_a_delivery_changes_nothing_and_is_logged(
    payments: Service, caplog: pytest.LogCaptureFixture
) -> None:
    payments.use(Raises("after the delivery"))
    with caplog.at_level(logging.ERROR):
        async with running(payments) as asking:
            reply = await asking.ask(Charge())

    assert reply.text_header(wire.OUTCOME) == wire.SUCCESS
    assert ["raised after message" in message for message in caplog.messages] == [True]


@pytest.mark.parametrize("where", ["before the delivery", "before the handler"])
async def test_an_event_that_middleware_keeps_refusing_is_put_off_and_then_dead_lettered(where: str) -> None:
    service, outcomes = Service("mailer", retry=SOON), Outcomes()

    @service.subscribes(Paid)
    async def paid(event: Paid) -> None:
        """Never called."""

    service.use(outcomes, Raises(where, times=2))
    async with running(service) as asking:
        await asking.publish(Paid())
        dead = await asyncio.wait_for(asking.dead_letter(), 30)
        if where == "before the handler":
            assert [await outcomes.next(), await outcomes.next()] == [Outcome.PUT_OFF, Outcome.DEAD_LETTERED]

    assert dead.text_header(DEAD_LETTER_REASON) == f"handler-raised: ValueError: raised {where}"


async def test_each_way_a_delivery_may_end_is_told() -> None:
    service, outcomes = Service("payments", retry=SOON), Outcomes()

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged | Failure:
        if command.charge == "evil":
            raise ValueError("evil")
        return Failure(reason="no") if command.charge == "no" else Charged()

    service.use(outcomes)
    async with running(service) as asking:
        told: list[Outcome] = []
        for name in ("yes", "no", "evil"):
            await asking.ask(Charge(charge=name))
            told.append(await outcomes.next())
        await asking.send(Charge(charge="evil"), reply_to="")
        told += [await outcomes.next(), await outcomes.next()]
        await asking.send_raw(wire.Envelope("m1", b"{", "charge"))
        told.append(await outcomes.next())

    assert told == ["success", "failure", "retry", "put-off", "dead-lettered", "unusable"]


async def test_a_repeated_order_is_told_and_does_not_come_to_the_handlers_middleware(
    blocking_sessions: sessionmaker[Session],
) -> None:
    service, seen, outcomes = Service("payments", sessions=blocking_sessions), list[str](), Outcomes()
    service.add(Charge, charge_in_session)
    service.use(outcomes, Told("it", seen))
    async with running(service) as asking:
        for _ in range(2):
            await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "k"})
        by_inbox = [(await outcomes.settled.get()).by_inbox for _ in range(2)]

    assert by_inbox == [False, True]
    assert sum("before" in line for line in seen) == 1


async def test_what_it_answers_itself_is_stored_with_the_claim(blocking_sessions: sessionmaker[Session]) -> None:
    service, closed = Service("payments", sessions=blocking_sessions), [True]
    service.add(Charge, charge_in_session)

    class Closed(Middleware):
        async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
            return Failure(reason="closed", code="closed") if closed else await call_next(received)

    service.use(Closed())
    async with running(service) as asking:
        await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "k"})
        closed.clear()
        again = await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "k"})
        another = await asking.ask(Charge(), headers={wire.IDEMPOTENCY_KEY: "l"})

    assert (again.text_header(wire.OUTCOME), again.text_header(wire.ERROR_CODE)) == ("failure", "closed")
    assert another.text_header(wire.OUTCOME) == wire.SUCCESS


async def test_what_it_publishes_and_changes_leaves_with_the_handlers_success(payments: Service) -> None:
    class Stamped(Middleware):
        async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
            received.context.publish(Paid(charge="by middleware"))
            return await call_next(received)

        async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
            headers = {**outgoing.envelope.headers, "stamp": "here"}
            await call_next(replace(outgoing, envelope=replace(outgoing.envelope, headers=headers)))

    payments.use(Stamped())
    transport = MemoryTransport()
    await transport.declare([QueueSpec("mailer", (Binding("paid"),))])
    mailer = await transport.subscribe("mailer", prefetch_messages=10)
    async with running(payments, transport) as asking:
        await asking.ask(Charge())
        told = [delivery for _ in range(2) for delivery in await asyncio.wait_for(mailer.take(1), 30)]

    assert [decode_body(Paid, delivery.envelope.body).charge for delivery in told] == ["by middleware", "c1"]
    assert [delivery.envelope.headers["stamp"] for delivery in told] == ["here", "here"]


async def test_what_it_changes_on_a_delivery_is_handled_but_not_dead_lettered() -> None:
    service = Service("payments", retry=Retry(max_attempts=1))

    class Opened(Middleware):
        async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
            opened = replace(delivery.envelope, body=delivery.envelope.body[::-1])
            return await call_next(replace(delivery, envelope=opened))

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        if command.charge == "evil":
            raise ValueError
        return Charged(charge=command.charge)

    service.use(Opened())
    async with running(service) as asking:
        await asking.send_raw(wire.Envelope("m1", b'{"charge":"ann"}'[::-1], "charge", reply_to="replies"))
        reply = await asking.reply()
        await asking.send_raw(wire.Envelope("m2", b'{"charge":"evil"}'[::-1], "charge"))
        dead = await asking.dead_letter()

    assert decode_body(Charged, reply.body).charge == "ann"
    assert dead.body == b'{"charge":"evil"}'[::-1]


class Swallows(Middleware):
    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        """Does not call `call_next`."""

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        return Settled(Outcome.SUCCESS)


async def test_a_delivery_that_is_not_passed_on_is_not_lost() -> None:
    service = Service("payments")
    service.add(Charge, charge_plain)
    service.use(Swallows())
    async with running(service) as asking:
        reply = await asking.ask(Charge())

    assert (reply.text_header(wire.OUTCOME), reply.text_header(wire.ERROR_CODE)) == (wire.RETRY, "NotPassedOn")


async def test_a_message_that_is_not_passed_on_is_an_error_of_its_sender() -> None:
    transport = MemoryTransport()
    async with Bus(transport) as bus:
        bus.use(Swallows())
        with pytest.raises(NotPassedOn, match="call_next"):
            await bus.publish(Paid())


async def test_a_bus_sends_through_its_middleware() -> None:
    transport, seen = MemoryTransport(), list[str]()
    service = Service("payments")
    service.add(Charge, charge_plain)
    async with running(service, transport), Bus(transport) as bus:
        bus.use(Told("bus", seen))
        await bus.send(Charge(), to="payments")
        await bus.publish(Paid())
        assert (await bus.request(Charge(), to="payments")).charge == "c1 for nobody"

    assert seen == ["bus publishes charge", "bus publishes paid", "bus publishes charge"]


def test_a_blocking_bus_sends_through_its_middleware_with_a_session_too(
    blocking_sessions: sessionmaker[Session],
) -> None:
    seen: list[str] = []
    bus = BlockingBus(MemoryTransport, services=[])
    bus.use(Told("bus", seen))
    with bus:
        bus.publish(Paid())
    with blocking_sessions() as session, session.begin():
        bus.publish(Paid(), session=session)
    with blocking_sessions() as session:
        written = session.scalar(select(func.count()).select_from(tables().outbox))

    assert (seen, written) == (["bus publishes paid"] * 2, 1)


def test_what_is_raised_around_sending_reaches_the_sender_of_a_blocking_bus() -> None:
    class Refuses(Middleware):
        async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
            raise CommandRefused(Failure(reason="no"), outgoing.envelope.message_id)

    bus = BlockingBus(MemoryTransport)
    bus.use(Refuses())
    with bus, pytest.raises(CommandRefused):
        bus.publish(Paid())


# -- time limits


class Slow(CommandHandler[Charge]):
    timeout = timedelta(milliseconds=20)

    async def handle(self, command: Charge, context: Context[None]) -> Charged:
        if command.charge == "slow":
            await asyncio.Event().wait()
        if command.charge == "its own":
            raise TimeoutError("its own")
        return Charged()


def slow_class() -> Service:
    service = Service("payments", retry=SOON)
    service.register(Slow())
    return service


def slow_function() -> Service:
    service = Service("payments", retry=SOON)

    @service.handles(Charge, timeout=timedelta(milliseconds=20))
    async def charge(command: Charge) -> Charged:
        return await Slow().handle(command, None)  # type: ignore[arg-type]

    return service


@pytest.mark.parametrize("made", [slow_class, slow_function])
async def test_a_handler_that_takes_too_long_is_cancelled_and_its_sender_told_to_retry(
    made: Callable[[], Service],
) -> None:
    async with running(made()) as asking:
        codes = [
            (await asking.ask(Charge(charge=name))).text_header(wire.ERROR_CODE) for name in ("slow", "its own", "")
        ]

    assert codes == ["HandlerTimeout", "TimeoutError", ""]


async def test_an_event_whose_handler_takes_too_long_follows_the_retry_policy() -> None:
    service, outcomes = Service("mailer", retry=SOON), Outcomes()

    class Slowly(EventHandler[Paid]):
        timeout = timedelta(milliseconds=5)

        async def handle(self, event: Paid, context: Context[None]) -> None:
            await asyncio.Event().wait()

    service.register(Slowly())
    service.use(outcomes)
    async with running(service) as asking:
        await asking.publish(Paid())
        assert [await outcomes.next(), await outcomes.next()] == [Outcome.PUT_OFF, Outcome.DEAD_LETTERED]


def test_a_plain_function_with_a_time_limit_is_refused_because_a_thread_cannot_be_stopped() -> None:
    service = Service("payments")

    with pytest.raises(HandlerDefinitionError, match="cannot be stopped"):

        @service.handles(Charge, timeout=timedelta(seconds=1))
        def charge(command: Charge) -> Charged:
            return Charged()


def test_a_time_limit_of_nothing_is_refused() -> None:
    service = Service("payments")

    with pytest.raises(HandlerDefinitionError, match="longer than nothing"):
        service.add(Charge, charge_async, timeout=timedelta(0))


# -- limits on bodies


class Sum(Command[Reply]):
    of: list[list[int]]


async def test_the_settings_bound_what_a_service_takes() -> None:
    service, outcomes = Service("sums"), Outcomes()

    @service.handles(Sum)
    async def add(command: Sum) -> Reply:
        return Reply()

    service.use(outcomes)
    transport = MemoryTransport()
    async with serving([service], transport, limits=MessagingSettings(max_depth=2).limits), Bus(transport) as bus:
        await bus.send(Sum(of=[]), to="sums")
        await bus.send(Sum(of=[[1]]), to="sums")
        assert [await outcomes.next(), await outcomes.next()] == [Outcome.SUCCESS, Outcome.UNUSABLE]


async def test_a_reply_over_the_limit_of_its_bus_is_refused() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        return Charged(charge="c" * 200)

    transport = MemoryTransport()
    async with serving([service], transport), Bus(transport, limits=Limits(max_body_bytes=100)) as bus:
        with pytest.raises(DecodeError, match="more than the limit of 100"):
            await bus.request(Charge(), to="payments")
