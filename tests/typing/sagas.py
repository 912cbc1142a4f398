"""Sagas, participants and tests of sagas as users write them: nothing here is refused."""
# pyright: strict, reportUntypedFunctionDecorator=false

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar, assert_type
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.bus import Bus
from messaging.messages import Command, Event, Failure, Reply
from messaging.service import Service
from orchestrator import (
    ForEach,
    ItemStep,
    LocalStep,
    Parallel,
    Retry,
    Saga,
    SagaStatus,
    Sequence,
    StartOnEvent,
    Step,
    WaitForEvent,
)
from orchestrator.testing import SagaProbe


class OrderState(BaseModel):
    order_id: UUID
    customer_id: UUID
    amount_cents: int
    warehouse: str = ""
    refusal: str = ""


class InvoiceState(BaseModel):
    number: int = 0


class OrderCreated(Reply):
    pass


class CreditReserved(Reply):
    pass


class CreditReleased(Reply):
    pass


class StockReserved(Reply):
    warehouse: str


class CreditRefused(Failure):
    available_cents: int


class CreateOrder(Command[OrderCreated]):
    order_id: UUID


class RejectOrder(Command[OrderCreated]):
    order_id: UUID
    reason: str


class ReserveCredit(Command[CreditReserved], failures=(CreditRefused,)):
    order_id: UUID
    customer_id: UUID
    amount_cents: int


class ReleaseCredit(Command[CreditReleased]):
    order_id: UUID


class ReserveStock(Command[StockReserved]):
    order_id: UUID


class ReleaseStock(Command[Reply]):
    order_id: UUID


class ShipOrder(Command[Reply]):
    order_id: UUID


class PaymentCaptured(Event):
    order_id: UUID


class OrderPlaced(Event):
    order_id: UUID


class CreatingOrder(Step[OrderState, OrderCreated]):
    participant = "orders"

    def command(self, state: OrderState) -> CreateOrder:
        return CreateOrder(order_id=state.order_id)

    def compensation(self, state: OrderState) -> RejectOrder:
        return RejectOrder(order_id=state.order_id, reason=state.refusal)


class ReservingCredit(Step[OrderState, CreditReserved]):
    participant = "customers"
    timeout = timedelta(seconds=30)
    retry = Retry(max_attempts=5)
    on_exhausted = "block"

    def when(self, state: OrderState) -> bool:
        return state.amount_cents > 0

    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id, customer_id=state.customer_id, amount_cents=state.amount_cents)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.refusal = failure.reason
        if isinstance(failure, CreditRefused):
            assert_type(failure.available_cents, int)

    def compensation(self, state: OrderState) -> ReleaseCredit | None:
        return ReleaseCredit(order_id=state.order_id) if state.amount_cents else None


class ReservingStock(Step[OrderState, StockReserved]):
    participant = "warehouse"

    def command(self, state: OrderState) -> ReserveStock:
        return ReserveStock(order_id=state.order_id)

    def on_reply(self, state: OrderState, reply: StockReserved) -> None:
        state.warehouse = reply.warehouse

    def events(self, state: OrderState) -> Iterable[Event]:
        yield OrderPlaced(order_id=state.order_id)

    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class AwaitingPayment(WaitForEvent[OrderState, PaymentCaptured]):
    timeout = timedelta(hours=24)
    on_timeout = "continue"

    def awaited_key(self, state: OrderState) -> str:
        return str(state.order_id)

    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)


class RegisteringOrder(LocalStep[OrderState]):
    async def run(self, state: OrderState, session: AsyncSession) -> CreditRefused | None:
        assert_type(state.amount_cents, int)
        return None if state.amount_cents else CreditRefused(reason="nothing to pay", available_cents=0)

    async def undo(self, state: OrderState, session: AsyncSession) -> None:
        await session.rollback()


class ReservingOne(ItemStep[OrderState, str, StockReserved]):
    participant = "warehouse"

    def command(self, state: OrderState, item: str) -> ReserveStock:
        return ReserveStock(order_id=state.order_id)

    def on_reply(self, state: OrderState, item: str, reply: StockReserved) -> None:
        state.warehouse = reply.warehouse + item

    def compensation(self, state: OrderState, item: str) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class ReservingEach(ForEach[OrderState, str]):
    concurrency = 20
    steps = (ReservingOne(),)

    def items(self, state: OrderState) -> list[str]:
        return [state.warehouse]

    def item_key(self, item: str) -> str:
        return item


class Shipping(Step[OrderState, Reply]):
    participant = "warehouse"
    pivot = True

    def command(self, state: OrderState) -> ShipOrder:
        return ShipOrder(order_id=state.order_id)


class Locked(CreatingOrder):
    lock_timeout = timedelta(minutes=1)
    on_locked = "fail"

    def locks(self, state: OrderState) -> list[str]:
        return [f"order:{state.order_id}"]


class OnPayment(StartOnEvent[OrderState, PaymentCaptured]):
    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)

    def state(self, event: PaymentCaptured) -> OrderState:
        return OrderState(order_id=event.order_id, customer_id=event.order_id, amount_cents=0)


class CreateOrderSaga(Saga[OrderState]):
    starts_on = (OnPayment(),)
    name = "create-order"
    deadline = timedelta(days=3)
    on_compensation_failure = "continue_others"
    steps = (
        CreatingOrder(),
        Parallel(ReservingCredit(), Sequence(ReservingStock(), AwaitingPayment())),
        RegisteringOrder(),
        ReservingEach(),
        Shipping(),
    )

    def on_completed(self, state: OrderState) -> list[Event]:
        return [OrderPlaced(order_id=state.order_id)]


class PatientShipping(Shipping):
    """A step as a kind of another."""

    timeout: ClassVar[timedelta] = timedelta(hours=1)


class PatientSaga(Saga[OrderState]):
    steps = (CreatingOrder(), PatientShipping())


customers = Service("customers")


@customers.handles(ReserveCredit)
async def reserve_credit(command: ReserveCredit) -> CreditReserved | CreditRefused:
    if command.amount_cents > 100:
        return CreditRefused(reason="limit reached", available_cents=100)
    return CreditReserved()


async def ask(bus: Bus, order: UUID) -> str:
    reply = await bus.request(ReserveStock(order_id=order), to="warehouse")
    assert_type(reply, StockReserved)
    return reply.warehouse


def a_test_of_a_saga(state: OrderState) -> None:
    probe = SagaProbe(CreateOrderSaga, state)
    probe.reply(CreatingOrder, OrderCreated())
    probe.reply(ReservingCredit, CreditRefused(reason="limit reached", available_cents=100))
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.event(AwaitingPayment, PaymentCaptured(order_id=state.order_id))
    probe.compensated(ReservingStock)
    probe.advance(timedelta(minutes=1))
    assert_type(probe.state, OrderState)
    assert probe.status is SagaStatus.COMPENSATING
    assert probe.just_sent == [RejectOrder(order_id=state.order_id, reason="limit reached")]
