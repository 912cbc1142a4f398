"""The bus for threads, over memory: its services live in its own loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from messaging.blocking import BlockingBus
from messaging.errors import CommandRefused, RequestTimeout, TransportError, Unroutable
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.service import Service
from messaging.sql import tables

SECOND = timedelta(seconds=1)


class Charged(Reply):
    cents: int = 0


class CardRefused(Failure):
    limit_cents: int = 0


class Charge(Command[Charged], failures=(CardRefused,)):
    cents: int = 0


class Ignore(Command[Reply]):
    pass


class Paid(Event):
    cents: int


class Payments:
    """A service that remembers, with the bus that serves it."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self.hold = threading.Event()
        self.service = service = Service("payments")

        @service.handles(Charge)
        async def charge(command: Charge) -> Charged | CardRefused:
            self.seen.append(command)
            if command.cents > 100:
                return CardRefused(reason="limit", limit_cents=100)
            return Charged(cents=command.cents)

        @service.handles(Ignore)
        def ignore(command: Ignore) -> Reply:
            self.hold.wait(10)
            return Reply()

        @service.subscribes(Paid)
        def paid(event: Paid) -> None:
            self.seen.append(event)

        self.bus = BlockingBus(MemoryTransport, services=[service])


@pytest.fixture
def payments() -> Iterator[Payments]:
    payments = Payments()
    yield payments
    payments.hold.set()
    payments.bus.close()


def eventually(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends, "it did not come to that within 10 s"
        time.sleep(0.005)


def test_the_first_call_starts_the_bus_and_a_request_returns_the_reply(payments: Payments) -> None:
    assert payments.bus.request(Charge(cents=7), to="payments") == Charged(cents=7)


def test_what_is_sent_and_published_arrives(payments: Payments) -> None:
    payments.bus.send(Charge(cents=7), to="payments")
    payments.bus.publish(Paid(cents=7))

    eventually(lambda: len(payments.seen) == 2)
    assert sorted(map(repr, payments.seen)) == ["Charge(cents=7)", "Paid(cents=7)"]


def test_errors_are_those_of_the_bus(payments: Payments) -> None:
    with pytest.raises(CommandRefused) as refused:
        payments.bus.request(Charge(cents=700), to="payments")
    assert refused.value.failure == CardRefused(reason="limit", limit_cents=100)
    with pytest.raises(Unroutable):
        payments.bus.send(Charge(), to="nobody")
    with pytest.raises(RequestTimeout):
        payments.bus.request(Ignore(), to="payments", timeout=SECOND / 20)


def test_many_threads_ask_at_once_and_each_gets_its_own_answer(payments: Payments) -> None:
    with ThreadPoolExecutor(16) as threads:
        replies = list(threads.map(lambda n: payments.bus.request(Charge(cents=n), to="payments"), range(100)))

    assert [reply.cents for reply in replies] == list(range(100))


def test_one_thread_serves_a_bus_and_ends_with_it(payments: Payments) -> None:
    def serving() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name == "bus 'bus'"]

    with payments.bus:
        payments.bus.request(Charge(), to="payments")
        assert len(serving()) == 1
    assert serving() == []


def test_a_closed_bus_says_so_and_can_be_started_again(payments: Payments) -> None:
    payments.bus.close()

    with pytest.raises(TransportError, match=r"bus 'bus' is closed. Call start\(\)"):
        payments.bus.send(Charge(), to="payments")
    payments.bus.start()
    assert payments.bus.request(Charge(cents=1), to="payments") == Charged(cents=1)


def test_closing_ends_a_call_that_is_under_way(payments: Payments) -> None:
    payments.bus.start()
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(payments.bus.request, Charge(), to="payments.dead")  # which nobody reads
        payments.bus.request(Charge(), to="payments")
        payments.bus.close()

        with pytest.raises(TransportError, match=r"bus 'bus' (is closed|was closed while this was under way)"):
            asked.result(10)


def test_a_broker_that_cannot_be_reached_is_the_callers_error_and_the_next_call_tries_again() -> None:
    class Away(MemoryTransport):
        async def open(self) -> None:
            tries.append(1)
            if len(tries) == 1:
                raise TransportError("the broker is away")

    tries: list[int] = []
    bus = BlockingBus(Away)

    with pytest.raises(TransportError, match="the broker is away"):
        bus.start()
    bus.publish(Paid(cents=1))
    bus.close()
    assert len(tries) == 2


def test_a_handler_that_calls_the_bus_of_its_own_loop_is_told_instead_of_waiting_for_itself() -> None:
    told: list[str] = []
    service = Service("payments")

    @service.handles(Ignore)
    async def handle(command: Ignore) -> Reply:
        try:
            bus.request(Ignore(), to="payments")
        except RuntimeError as error:
            told.append(str(error))
        return Reply()

    with BlockingBus(MemoryTransport, services=[service]) as bus:
        bus.request(Ignore(), to="payments")
    assert told == ["bus 'bus' was called in its own loop: use Context, or a Bus, in handlers"]


def test_with_a_session_a_message_leaves_when_it_commits_and_never_when_it_does_not(
    payments: Payments, tmp_path: Path
) -> None:
    sessions = sessionmaker(create_engine(f"sqlite:///{tmp_path / 'shop.db'}"))
    with sessions.begin() as session:
        tables().metadata.create_all(session.connection())
    bus = BlockingBus(MemoryTransport, outbox=sessions, services=[payments.service])
    with bus:
        with sessions() as session:
            bus.publish(Paid(cents=1), session=session)
            session.rollback()
        with sessions.begin() as session:
            bus.publish(Paid(cents=2), session=session)
            bus.send(Charge(cents=3), to="payments", session=session.connection())
            assert waiting(session) == 2

        eventually(lambda: len(payments.seen) == 2)
    assert sorted(map(repr, payments.seen)) == ["Charge(cents=3)", "Paid(cents=2)"]


def test_without_an_outbox_of_its_own_writing_needs_no_broker(tmp_path: Path) -> None:
    class Away(MemoryTransport):
        async def open(self) -> None:
            raise TransportError("the broker is away")

    sessions = sessionmaker(create_engine(f"sqlite:///{tmp_path / 'shop.db'}"))
    with sessions.begin() as session:
        tables().metadata.create_all(session.connection())
        BlockingBus(Away).publish(Paid(cents=2), session=session)

    with sessions() as session:
        assert waiting(session) == 1


def waiting(session: Session) -> int:
    return session.scalar(select(func.count()).select_from(tables().outbox)) or 0
