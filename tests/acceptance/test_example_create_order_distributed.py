"""The shop as processes of its own over RabbitMQ and PostgreSQL: two orchestrators, four services.

All orders are placed at once, each with a trouble of its own, and each is looked at when all have come to rest.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from create_order.database import Customer, Entry, Sessions, Stock, Trouble
from create_order.place_order import pay_when_asked, place
from create_order.sagas import CreateOrderSaga, OrderState
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from orchestrator import BlockedReason, SagaClient, SagaStatus
from tests.support.broker import Broker
from tests.support.databases import fresh_database
from tests.support.programs import Program, Programs, until

ANSWER_SECONDS = 1.5
SERVICES = ("orders", "customers", "warehouse", "payments")
UNDO_OF = {
    ("orders", "created"): ("orders", "rejected"),
    ("customers", "reserved"): ("customers", "released"),
    ("warehouse", "reserved"): ("warehouse", "released"),
    ("payments", "requested"): ("payments", "cancelled"),
}
DONE_BY = {
    "create-order": ("orders", "created"),
    "reserve-credit": ("customers", "reserved"),
    "reserve-stock": ("warehouse", "reserved"),
    "request-payment": ("payments", "requested"),
    "ship-order": ("warehouse", "shipped"),
}
BEFORE_PIVOT = ("create-order", "reserve-credit", "reserve-stock", "request-payment")
STEP_OF = {
    "create-order": "CreatingOrder",
    "reserve-credit": "ReservingCredit",
    "reserve-stock": "ReservingStock",
    "request-payment": "RequestingPayment",
    "ship-order": "ShippingOrder",
}


@dataclass
class Case:
    """An order, what goes wrong with it, and what became of it."""

    changes: dict[str, Any] = field(default_factory=dict[str, Any])
    trouble: tuple[str, str, int] | None = None
    """Command, kind, in how many attempts."""
    pays: bool = True
    order_id: UUID = field(default_factory=uuid4)
    saga_id: UUID = field(default_factory=uuid4)
    status: SagaStatus = SagaStatus.RUNNING
    row: Any = None
    state: Any = None
    ledger: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])

    @property
    def is_silent(self) -> bool:
        return self.trouble is not None and self.trouble[1] == "silent"


def cases() -> dict[str, Case]:
    found = {f"plain {number}": Case() for number in range(3)}
    found["over the limit"] = Case({"customer": "poor-bob"})
    found["nobody's"] = Case({"customer": "nobody"})
    found["out of stock"] = Case({"sku": "out-of-stock"})
    found["for nothing"] = Case({"amount_cents": 0})
    found["unpaid"] = Case(pays=False)
    for command in STEP_OF:
        found[f"{command} refused"] = Case(trouble=(command, "refuse", 99))
        found[f"{command} raised once"] = Case(trouble=(command, "raise", 1))
        found[f"{command} silent"] = Case(trouble=(command, "silent", 1))
    for command in BEFORE_PIVOT:
        found[f"{command} raised"] = Case(trouble=(command, "raise", 99))
    found["ship-order raised"] = Case(trouble=("ship-order", "raise", 99))
    found["receipt refused once"] = Case(trouble=("send-receipt", "refuse", 1))
    found["receipt refused"] = Case(trouble=("send-receipt", "refuse", 99))
    found["receipt silent"] = Case(trouble=("send-receipt", "silent", 1))
    return found


class Shop:
    """The processes, their databases, and the orders that were placed."""

    def __init__(self, programs: Programs, sagas: str, shop: str) -> None:
        self.programs, self.sagas, self.shop = programs, sagas, shop
        self.cases = cases()
        self.services: dict[str, Program] = {}

    def start(self) -> None:
        """Migrate as a user does, start everything, and wait until it runs."""
        programs = self.programs
        migrations = [
            programs.saga("migrate"),
            programs.saga("migrate", "--only", "messaging", "--url", self.shop),
        ]
        for migration in migrations:
            programs.done(migration)
        programs.done(programs.python("create_order.database"))
        running = [programs.saga("run", "create_order.main:app") for _ in range(2)]
        for name in SERVICES:
            self.services[name] = self.start_service(name)
        for program in [*running, *self.services.values()]:
            program.wait_until_it_says("Running")

    def start_service(self, name: str) -> Program:
        return self.programs.python("tests.support.recorded", "received.jsonl", f"create_order.services:{name}")

    async def place_all(self) -> None:
        """Place every order, pay when asked, and wait until each has ended or is blocked."""
        async with self.client() as client:
            await asyncio.gather(*(self._place(client, case) for case in self.cases.values()))
            await self.look(client)

    async def _place(self, client: SagaClient, case: Case) -> None:
        fields = {"customer": "ann", "sku": "lamp", "amount_cents": 1200, **case.changes}
        order = OrderState(order_id=case.order_id, **fields)
        troubles = []
        if case.trouble is not None:
            command, kind, attempts = case.trouble
            troubles = [Trouble(order_id=case.order_id, command=command, kind=kind, attempts=attempts)]
        started = await place(client, order, *troubles)
        case.saga_id = started.id
        if case.pays:
            await pay_when_asked(client, started, order)
        if case.is_silent:  # the participant speaks once the saga has given up waiting for it
            await until(lambda: has_given_up(client, case), within=60)
            if case is self.cases["ship-order silent"]:
                return
            await speak(case)
            await until(lambda: has_ended(client, case), within=60)
        await client.wait(started.id, timeout=timedelta(seconds=60))

    async def look(self, client: SagaClient) -> None:
        """See what became of each order, once the shop was told of it."""
        for case in self.cases.values():
            case.row = await client.get(case.saga_id)
            case.status = case.row.status
            case.state = await client.state(CreateOrderSaga, case.saga_id)
        await until(self._all_told)

    async def _all_told(self) -> bool:
        async with Sessions() as session:
            entries = (await session.execute(select(Entry.order_id, Entry.service, Entry.what))).all()
        ledgers: dict[UUID, Counter[tuple[str, str]]] = defaultdict(Counter)
        for order_id, service, what in entries:
            ledgers[order_id][service, what] += 1
        for case in self.cases.values():
            case.ledger = ledgers[case.order_id]
        return all(
            any(what.startswith("told") for _, what in case.ledger)
            for case in self.cases.values()
            if case.status.terminal
        )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[SagaClient]:
        """A client of the sagas, and the shop's own functions bound to its database."""
        # Few connections, which all clients of this test share: the server's belong to others too.
        engines: list[AsyncEngine] = [
            create_async_engine(url, pool_size=4, max_overflow=0, pool_timeout=60) for url in (self.sagas, self.shop)
        ]
        Sessions.configure(bind=engines[1])
        yield SagaClient(engines[0])
        for engine in engines:
            await engine.dispose()

    def received(self) -> list[dict[str, Any]]:
        """Every message that a service took off its queue."""
        return [json.loads(line) for line in (self.programs.folder / "received.jsonl").read_text().splitlines()]


async def speak(case: Case) -> None:
    """Have the silent participant do its work after all."""
    async with Sessions.begin() as session:
        await session.execute(delete(Trouble).where(Trouble.order_id == case.order_id))


async def has_given_up(client: SagaClient, case: Case) -> bool:
    return (await client.get(case.saga_id)).status is not SagaStatus.RUNNING


async def has_ended(client: SagaClient, case: Case) -> bool:
    return (await client.get(case.saga_id)).status.terminal


@pytest.fixture(scope="module")
def shop(amqp_url: str, postgres_url: str) -> Iterator[Shop]:
    prefix = f"t-{uuid4().hex[:8]}."
    with ExitStack() as stack:
        sagas, own = (stack.enter_context(fresh_database(postgres_url)) for _ in range(2))
        environment = {
            "ORCHESTRATOR_DATABASE_URL": sagas,
            "SHOP_DATABASE_URL": own,
            "MESSAGING_BROKER_URL": amqp_url,
            "MESSAGING_PREFIX": prefix,
            "SHOP_ANSWER_SECONDS": str(ANSWER_SECONDS),
            "SHOP_PAYMENT_SECONDS": "15",
        }
        stack.callback(lambda: asyncio.run(remove_queues(amqp_url, prefix)))
        programs = stack.enter_context(Programs(environment))
        shop = Shop(programs, sagas, own)
        try:
            shop.start()
            asyncio.run(shop.place_all())
        except BaseException:
            print(programs.tails())
            raise
        yield shop


async def remove_queues(amqp_url: str, prefix: str) -> None:
    async with Broker(amqp_url) as broker:
        broker.exchange(f"{prefix}events")
        for name in (*SERVICES, "orchestrator.main.replies", "orchestrator.main.events"):
            broker.service_queue(f"{prefix}{name}")


def effects(case: Case) -> dict[tuple[str, str], int]:
    """What each service did and undid, without the orders service being told of the end."""
    return {line: count for line, count in case.ledger.items() if not line[1].startswith("told")}


def nothing_left(case: Case) -> bool:
    """Whether all that was done is undone, and nothing but that."""
    done = effects(case)
    return all(done.get(line, 0) == done.get(undo, 0) for line, undo in UNDO_OF.items())


def test_an_order_without_trouble_completes(shop: Shop) -> None:
    for number in range(3):
        case = shop.cases[f"plain {number}"]
        assert case.status is SagaStatus.COMPLETED
        assert case.state.tracking == f"north-{case.order_id}"
        assert effects(case) == {
            ("orders", "created"): 1,
            ("customers", "reserved"): 1,
            ("warehouse", "reserved"): 1,
            ("payments", "requested"): 1,
            ("payments", "captured"): 1,
            ("warehouse", "shipped"): 1,
            ("orders", "receipt"): 1,
        }


@pytest.mark.parametrize("command", STEP_OF)
def test_a_refused_step_did_not_happen_and_the_others_are_undone(shop: Shop, command: str) -> None:
    case = shop.cases[f"{command} refused"]

    assert case.status is SagaStatus.COMPENSATED
    assert case.row.failed_step == STEP_OF[command]
    assert case.state.refusal == f"{command} was rehearsed to be refused"
    assert DONE_BY[command] not in case.ledger
    assert nothing_left(case)
    assert case.ledger["payments", "refunded"] == case.ledger["payments", "captured"] == (command == "ship-order")
    assert case.ledger["orders", "told rejected"] == 1


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("over the limit", "limit reached"),
        ("nobody's", "there is no customer nobody"),
        ("out of stock", "not enough of out-of-stock"),
        ("for nothing", "an order is for more than nothing"),
        ("unpaid", "not paid in time"),
    ],
)
def test_an_order_that_the_shop_cannot_take_is_undone(shop: Shop, name: str, refusal: str) -> None:
    case = shop.cases[name]

    assert (case.status, case.state.refusal) == (SagaStatus.COMPENSATED, refusal)
    assert nothing_left(case)
    assert ("warehouse", "shipped") not in case.ledger


@pytest.mark.parametrize("command", STEP_OF)
def test_a_step_that_fails_technically_is_tried_again(shop: Shop, command: str) -> None:
    case = shop.cases[f"{command} raised once"]

    assert case.status is SagaStatus.COMPLETED
    assert case.ledger[DONE_BY[command]] == 1


@pytest.mark.parametrize("command", BEFORE_PIVOT)
def test_a_step_without_an_answer_is_undone_although_it_happens_later(shop: Shop, command: str) -> None:
    case = shop.cases[f"{command} silent"]

    assert case.status is SagaStatus.COMPENSATED
    assert case.row.failed_step == STEP_OF[command]
    assert nothing_left(case)
    done = DONE_BY[command]
    assert case.ledger[done] == case.ledger[UNDO_OF[done]] == 1


@pytest.mark.parametrize("command", BEFORE_PIVOT)
def test_a_step_that_never_gets_through_leaves_nothing(shop: Shop, command: str) -> None:
    case = shop.cases[f"{command} raised"]

    assert case.status is SagaStatus.COMPENSATED
    assert nothing_left(case)
    assert DONE_BY[command] not in case.ledger


@pytest.mark.parametrize("name", ["ship-order silent", "ship-order raised"])
def test_a_pivot_without_an_answer_blocks_the_order_and_nothing_is_undone(shop: Shop, name: str) -> None:
    case = shop.cases[name]

    assert case.status is SagaStatus.BLOCKED
    assert case.row.blocked_reason == BlockedReason.PIVOT_UNKNOWN
    assert case.row.blocked_step == "ShippingOrder"
    assert not set(UNDO_OF.values()) & set(case.ledger)
    assert ("payments", "refunded") not in case.ledger


def test_after_the_pivot_a_refused_step_is_tried_again(shop: Shop) -> None:
    once, always = shop.cases["receipt refused once"], shop.cases["receipt refused"]

    assert once.status is SagaStatus.COMPLETED
    assert once.ledger["orders", "receipt"] == 1
    assert always.status is SagaStatus.BLOCKED
    assert always.row.blocked_reason == BlockedReason.RETRIES_EXHAUSTED
    assert always.ledger["warehouse", "shipped"] == 1
    assert not set(UNDO_OF.values()) & set(always.ledger)


def test_an_answer_that_comes_after_the_last_attempt_completes_a_blocked_order(shop: Shop) -> None:
    case = shop.cases["receipt silent"]

    assert case.status is SagaStatus.COMPLETED
    assert case.ledger["orders", "receipt"] == 1


def test_nothing_happened_twice_and_the_ledgers_agree(shop: Shop) -> None:
    for name, case in shop.cases.items():
        assert max(case.ledger.values(), default=1) == 1, name
    asyncio.run(check_what_is_free(shop))


async def check_what_is_free(shop: Shop) -> None:
    async with shop.client(), Sessions() as session:
        ledger = (await session.scalars(select(Entry))).all()
        for customer in await session.scalars(select(Customer)):
            initial = {"ann": 1_000_000, "poor-bob": 500}[customer.name]
            assert customer.free_cents == initial - taken(ledger, "customers", customer.name)
        for stock in await session.scalars(select(Stock)):
            initial = {"lamp": 1_000, "out-of-stock": 0}[stock.sku]
            assert stock.free == initial - taken(ledger, "warehouse", stock.sku)


def taken(ledger: Any, service: str, of: str) -> int:
    sign = {"reserved": 1, "released": -1}
    return sum(sign.get(entry.what, 0) * entry.amount for entry in ledger if (entry.service, entry.of) == (service, of))


def test_an_attempt_never_goes_out_under_two_message_ids(shop: Shop) -> None:
    ids_of: dict[tuple[str, int], set[str]] = defaultdict(set)
    attempts_of: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for message in shop.received():
        if "attempt" in message["headers"]:
            attempt = message["headers"]["idempotency-key"], message["headers"]["attempt"]
            ids_of[attempt].add(message["message_id"])
            attempts_of[message["message_id"]].add(attempt)

    assert len(ids_of) > len(shop.cases)
    assert all(len(ids) == 1 for ids in ids_of.values())
    assert all(len(attempts) == 1 for attempts in attempts_of.values())


def test_a_pivot_that_gets_through_after_all_completes_the_order(shop: Shop) -> None:
    case = shop.cases["ship-order silent"]
    assert case.status is SagaStatus.BLOCKED

    async def kill_the_silent_one() -> SagaStatus:
        async with shop.client() as client:
            shop.services["warehouse"].kill()
            await speak(case)
            shop.start_service("warehouse")  # the command was never acknowledged: it comes again
            await until(lambda: has_ended(client, case))
            return (await client.get(case.saga_id)).status

    assert asyncio.run(kill_the_silent_one()) is SagaStatus.COMPLETED
