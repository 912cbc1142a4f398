"""Mistakes that both type checkers refuse, each where `expect-error` stands and nowhere else. Never imported."""
# pyright: strict, reportUntypedFunctionDecorator=false

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.bus import Bus
from messaging.service import Service
from orchestrator import (
    ForEach,
    ItemStep,
    LocalStep,
    Parallel,
    Saga,
    SagaClient,
    SagaStatus,
    Searchable,
    Step,
    WaitForEvent,
)
from orchestrator.testing import SagaHarness, SagaProbe, Seen, explore
from tests.typing.sagas import (
    AwaitingPayment,
    CreateOrder,
    CreateOrderSaga,
    CreatingOrder,
    CreditReserved,
    InvoiceState,
    OnPayment,
    OrderCreated,
    OrderPlaced,
    OrderState,
    PaymentCaptured,
    ReserveCredit,
    ReserveStock,
    ReservingCredit,
    ReservingStock,
    Shipping,
    StockReserved,
)


class ReplyOfAnotherStep(ReservingStock):
    def on_reply(self, state: OrderState, reply: CreditReserved) -> None:  # expect-error
        state.warehouse = "north"


class FieldThatTheReplyDoesNotHave(Step[OrderState, CreditReserved]):
    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id, customer_id=state.customer_id, amount_cents=1)

    def on_reply(self, state: OrderState, reply: CreditReserved) -> None:
        state.warehouse = reply.warehouse  # expect-error


class ItemOfAnotherType(ItemStep[OrderState, str, StockReserved]):
    def command(self, state: OrderState, item: int) -> ReserveStock:  # expect-error
        return ReserveStock(order_id=state.order_id)


class ItemsOfAnotherType(ForEach[OrderState, int]):
    def items(self, state: OrderState) -> list[str]:  # expect-error
        return [state.warehouse]

    def item_key(self, item: int) -> str:
        return str(item)


class FunctionThatIsNotAsync(LocalStep[OrderState]):
    def run(self, state: OrderState, session: AsyncSession) -> None:  # expect-error
        state.warehouse = "north"


class CommandWithAnotherReply(Step[OrderState, StockReserved]):
    def command(self, state: OrderState) -> CreateOrder:  # expect-error
        return CreateOrder(order_id=state.order_id)


class CommandOfAnotherState(Step[OrderState, OrderCreated]):
    def command(self, state: InvoiceState) -> CreateOrder:  # expect-error
        return CreateOrder(order_id=UUID(int=state.number))


class NoCommand(Step[OrderState, OrderCreated]):
    participant = "orders"


class CompensationThatIsNoCommand(CreatingOrder):
    def compensation(self, state: OrderState) -> OrderPlaced:  # expect-error
        return OrderPlaced(order_id=state.order_id)


class TimeoutInSeconds(CreatingOrder):
    timeout = 30  # expect-error


class UnknownWord(CreatingOrder):
    on_exhausted = "stop"  # expect-error


class KeyOfAnotherEvent(WaitForEvent[OrderState, PaymentCaptured]):
    def event_key(self, event: OrderPlaced) -> str:  # expect-error
        return str(event.order_id)


class KeyThatIsNoText(AwaitingPayment):
    def awaited_key(self, state: OrderState) -> UUID:  # expect-error
        return state.order_id


class Invoicing(Step[InvoiceState, OrderCreated]):
    participant = "invoices"
    nothing_to_undo = True

    def command(self, state: InvoiceState) -> CreateOrder:
        return CreateOrder(order_id=UUID(int=state.number))


class LockThatIsNoText(CreatingOrder):
    def locks(self, state: OrderState) -> list[UUID]:  # expect-error
        return [state.order_id]


class WhatToDoWhenLocked(CreatingOrder):
    on_locked = "sleep"  # expect-error


class KeyOfAnotherEventsStart(OnPayment):
    def event_key(self, event: OrderPlaced) -> str:  # expect-error
        return str(event.order_id)


class StartWithAnotherState(OnPayment):
    def state(self, event: PaymentCaptured) -> InvoiceState:  # expect-error
        return InvoiceState()


class StartOfAnotherSaga(Saga[InvoiceState]):
    starts_on = (OnPayment(),)  # expect-error
    steps = (Invoicing(),)


class StepOfAnotherState(Saga[OrderState]):
    steps = (CreatingOrder(), Invoicing())  # expect-error


class StepOfAnotherStateInAGroup(Saga[OrderState]):
    steps = (CreatingOrder(), Parallel(ReservingCredit(), Invoicing()))  # expect-error


class ClassInPlaceOfAnInstance(Saga[OrderState]):
    steps = (CreatingOrder(), Shipping)  # expect-error


class AbstractStep(Saga[OrderState]):
    steps = (CreatingOrder(), NoCommand())  # expect-error


wrong_keyword = CreateOrder(order=UUID(int=1))  # expect-error
wrong_type = StockReserved(warehouse=3)  # expect-error

service = Service("customers")


@service.handles(ReserveCredit)  # expect-error
async def answers_something_else(command: ReserveCredit) -> StockReserved:
    return StockReserved(warehouse="north")


@service.handles(ReserveCredit)  # expect-error
async def takes_another_command(command: ReserveStock) -> CreditReserved:
    return CreditReserved()


async def expects_another_reply(bus: Bus) -> CreditReserved:
    return await bus.request(ReserveStock(order_id=UUID(int=1)), to="warehouse")  # expect-error


def mistakes_in_a_test(state: OrderState) -> None:
    SagaProbe(CreateOrderSaga, InvoiceState())  # expect-error
    probe = SagaProbe(CreateOrderSaga, state)
    probe.reply(ReservingStock, CreditReserved())  # expect-error
    probe.reply(Invoicing, OrderCreated())  # expect-error
    probe.event(AwaitingPayment, OrderPlaced(order_id=state.order_id))  # expect-error
    probe.advance(30)  # expect-error
    assert probe.state.number == 1  # expect-error
    assert probe.status is SagaStatus.COMPLETED
    probe.advance(timedelta(seconds=30))


async def mistakes_in_a_harness(state: OrderState) -> None:
    harness = SagaHarness(CreateOrderSaga)
    harness.participant("customers").on(ReserveCredit).answers(CreditReserved())
    harness.participant("customers").on(ReserveCredit).answers(StockReserved(warehouse="north"))  # expect-error
    harness.participant("customers").on(OrderPlaced)  # expect-error
    await harness.start(CreateOrderSaga, InvoiceState())  # expect-error
    saga = await harness.start(CreateOrderSaga, state)
    assert saga.state.number == 1  # expect-error
    await harness.advance(30)  # expect-error
    await harness.advance(hours=1)


def of_another_saga(seen: Seen[InvoiceState]) -> bool:
    return seen.state.number > 0


def mistakes_in_an_exploration(state: OrderState) -> None:
    explore(CreateOrderSaga, InvoiceState())  # expect-error
    explore(CreateOrderSaga, state, invariants=[of_another_saga])  # expect-error


class SearchedState(BaseModel):
    customer: Annotated[str, Searchable]
    address: Searchable  # expect-error


async def mistakes_in_a_search(sagas: SagaClient) -> None:
    sagas.list(where={"customer": "c-17", "lines": 3, "gift": True, "due": None, "placed_at": datetime.now(UTC)})
    sagas.list(where={"amount": 9.5})  # expect-error
    sagas.list(where={"customer": ["c-17"]})  # expect-error
    sagas.list(where="customer=c-17")  # expect-error
