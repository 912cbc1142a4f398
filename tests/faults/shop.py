"""A shop whose sagas are killed at every line: what an order does depends on its data alone.

Every effect is a row of `ledger`, where nothing is unique: what is done twice is seen.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from enum import StrEnum

from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from messaging import Command, Context, Event, Failure, Reply, Retry, Service
from orchestrator import LocalStep, Parallel, Saga, Step, WaitForEvent
from orchestrator import Sequence as Steps

own = MetaData()
ledger = Table(
    "ledger",
    own,
    Column("id", Integer, primary_key=True),
    Column("order_id", String, nullable=False),
    Column("effect", String, nullable=False),
    Column("idempotency_key", String, nullable=False),
)


class Kind(StrEnum):
    """What becomes of an order."""

    PLAIN = "plain"
    FLAKY = "flaky"
    """Two of its participants fail technically at the first attempt."""
    NO_CREDIT = "no-credit"
    NO_STOCK = "no-stock"
    NO_LABEL = "no-label"
    UNPAID = "unpaid"
    """Its payment never comes."""
    DECLINED = "declined"
    """The pivot is refused, and undoing the first step fails technically at the first attempt."""

    @property
    def completes(self) -> bool:
        return self in (Kind.PLAIN, Kind.FLAKY)


UNDOABLE = ("credit", "registered", "stock", "courier", "label", "invoice")
SURELY_UNDONE: dict[Kind, tuple[str, ...]] = {
    Kind.NO_CREDIT: (),
    Kind.NO_STOCK: ("credit", "registered"),
    Kind.NO_LABEL: ("credit", "registered", "courier"),
    Kind.UNPAID: UNDOABLE,
    Kind.DECLINED: UNDOABLE,
}
# Branches that ran beside the one that was refused: done and undone, or neither.
MAYBE_UNDONE: dict[Kind, tuple[str, ...]] = {Kind.NO_STOCK: ("courier", "label"), Kind.NO_LABEL: ("stock",)}


# -- messages


class Done(Reply):
    order_id: str


class Order(Command[Done]):
    """What all commands of the shop say."""

    order_id: str
    kind: Kind


class ReserveCredit(Order): ...


class ReleaseCredit(Order): ...


class ReserveStock(Order): ...


class ReleaseStock(Order): ...


class BookCourier(Order): ...


class CancelCourier(Order): ...


class PrintLabel(Order): ...


class VoidLabel(Order): ...


class SendInvoice(Order): ...


class VoidInvoice(Order): ...


class ChargeCustomer(Order): ...


class ShipParcel(Order): ...


class InvoicePaid(Event):
    order_id: str


class OrderClosed(Event):
    order_id: str
    completed: bool


# -- the saga


class OrderState(BaseModel):
    order_id: str
    kind: Kind


SOON_AGAIN = Retry(max_attempts=10, backoff=timedelta(milliseconds=200), factor=1.5, cap=timedelta(seconds=1))


class ShopStep(Step[OrderState, Done]):
    """With policies for tests."""

    # Longer than any test waits: what was lost must not be mended by asking again.
    timeout = timedelta(seconds=float(os.environ.get("SHOP_STEP_TIMEOUT_SECONDS", "600")))
    compensation_timeout = timeout
    retry = SOON_AGAIN
    compensation_retry = SOON_AGAIN


class ReservingCredit(ShopStep):
    participant = "customers"

    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id, kind=state.kind)

    def compensation(self, state: OrderState) -> ReleaseCredit:
        return ReleaseCredit(order_id=state.order_id, kind=state.kind)


class RegisteringOrder(LocalStep[OrderState]):
    """Writes into a ledger beside the sagas."""

    async def run(self, state: OrderState, session: AsyncSession) -> None:
        await self._write(session, state, "registered")

    async def undo(self, state: OrderState, session: AsyncSession) -> None:
        await self._write(session, state, "undo registered")

    async def _write(self, session: AsyncSession, state: OrderState, effect: str) -> None:
        row = {"order_id": state.order_id, "effect": effect, "idempotency_key": ""}
        await session.execute(insert(ledger).values(row))


class ReservingStock(ShopStep):
    participant = "warehouse"

    def command(self, state: OrderState) -> ReserveStock:
        return ReserveStock(order_id=state.order_id, kind=state.kind)

    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id, kind=state.kind)


class BookingCourier(ShopStep):
    participant = "couriers"

    def command(self, state: OrderState) -> BookCourier:
        return BookCourier(order_id=state.order_id, kind=state.kind)

    def compensation(self, state: OrderState) -> CancelCourier:
        return CancelCourier(order_id=state.order_id, kind=state.kind)


class PrintingLabel(ShopStep):
    participant = "couriers"

    def command(self, state: OrderState) -> PrintLabel:
        return PrintLabel(order_id=state.order_id, kind=state.kind)

    def compensation(self, state: OrderState) -> VoidLabel:
        return VoidLabel(order_id=state.order_id, kind=state.kind)


class SendingInvoice(ShopStep):
    participant = "customers"

    def command(self, state: OrderState) -> SendInvoice:
        return SendInvoice(order_id=state.order_id, kind=state.kind)

    def compensation(self, state: OrderState) -> VoidInvoice:
        return VoidInvoice(order_id=state.order_id, kind=state.kind)


class AwaitingPayment(WaitForEvent[OrderState, InvoicePaid]):
    timeout = timedelta(minutes=10)

    def when(self, state: OrderState) -> bool:
        return state.kind is not Kind.UNPAID

    def awaited_key(self, state: OrderState) -> str:
        return state.order_id

    def event_key(self, event: InvoicePaid) -> str:
        return event.order_id


class AwaitingPaymentInVain(AwaitingPayment):
    timeout = timedelta(seconds=1)

    def when(self, state: OrderState) -> bool:
        return state.kind is Kind.UNPAID


class ChargingCustomer(ShopStep):
    participant = "customers"
    pivot = True
    on_exhausted = "block"

    def command(self, state: OrderState) -> ChargeCustomer:
        return ChargeCustomer(order_id=state.order_id, kind=state.kind)


class ShippingParcel(ShopStep):
    participant = "warehouse"
    retriable = True
    on_exhausted = "block"

    def command(self, state: OrderState) -> ShipParcel:
        return ShipParcel(order_id=state.order_id, kind=state.kind)


class OrderSaga(Saga[OrderState]):
    name = "order"
    steps = (
        ReservingCredit(),
        RegisteringOrder(),
        Parallel(ReservingStock(), Steps(BookingCourier(), PrintingLabel())),
        SendingInvoice(),
        AwaitingPayment(),
        AwaitingPaymentInVain(),
        ChargingCustomer(),
        ShippingParcel(),
    )

    def on_completed(self, state: OrderState) -> Iterable[Event]:
        return [OrderClosed(order_id=state.order_id, completed=True)]

    def on_compensated(self, state: OrderState) -> Iterable[Event]:
        return [OrderClosed(order_id=state.order_id, completed=False)]


# -- the participants

REFUSED = {"credit": Kind.NO_CREDIT, "stock": Kind.NO_STOCK, "label": Kind.NO_LABEL, "charge": Kind.DECLINED}
FAILS_AT_FIRST = {"invoice": Kind.FLAKY, "ship": Kind.FLAKY, "undo credit": Kind.DECLINED}


async def carried_out(order: Order, context: Context, effect: str) -> Done | Failure:
    """Write the effect down, unless the order's data say otherwise."""
    if REFUSED.get(effect) is order.kind:
        return Failure(reason=f"{effect} is refused")
    await written(context, order.order_id, effect)
    if FAILS_AT_FIRST.get(effect) is order.kind and context.attempt == 1:
        raise RuntimeError(f"{effect} fails at first")
    return Done(order_id=order.order_id)


async def written(context: Context, order_id: str, effect: str) -> None:
    row = {"order_id": order_id, "effect": effect, "idempotency_key": context.idempotency_key}
    await context.session.execute(insert(ledger).values(row))


def services(sessions: async_sessionmaker[AsyncSession]) -> Sequence[Service]:
    """All participants, each with its queue."""
    return [_customers(sessions), _warehouse(sessions), _couriers(sessions), _bookkeeping(sessions)]


SERVICES = ("customers", "warehouse", "couriers", "bookkeeping")


def _customers(sessions: async_sessionmaker[AsyncSession]) -> Service:
    service = Service("customers", sessions=sessions)

    @service.handles(ReserveCredit)
    async def reserve(command: ReserveCredit, context: Context) -> Done | Failure:
        return await carried_out(command, context, "credit")

    @service.handles(ReleaseCredit)
    async def release(command: ReleaseCredit, context: Context) -> Done | Failure:
        return await carried_out(command, context, "undo credit")

    @service.handles(SendInvoice)
    async def invoice(command: SendInvoice, context: Context) -> Done | Failure:
        if command.kind is not Kind.UNPAID:
            await context.publish(InvoicePaid(order_id=command.order_id))
        return await carried_out(command, context, "invoice")

    @service.handles(VoidInvoice)
    async def void_invoice(command: VoidInvoice, context: Context) -> Done | Failure:
        return await carried_out(command, context, "undo invoice")

    @service.handles(ChargeCustomer)
    async def charge(command: ChargeCustomer, context: Context) -> Done | Failure:
        return await carried_out(command, context, "charge")

    return service


def _warehouse(sessions: async_sessionmaker[AsyncSession]) -> Service:
    service = Service("warehouse", sessions=sessions)

    @service.handles(ReserveStock)
    async def reserve(command: ReserveStock, context: Context) -> Done | Failure:
        return await carried_out(command, context, "stock")

    @service.handles(ReleaseStock)
    async def release(command: ReleaseStock, context: Context) -> Done | Failure:
        return await carried_out(command, context, "undo stock")

    @service.handles(ShipParcel)
    async def ship(command: ShipParcel, context: Context) -> Done | Failure:
        return await carried_out(command, context, "ship")

    return service


def _couriers(sessions: async_sessionmaker[AsyncSession]) -> Service:
    service = Service("couriers", sessions=sessions)

    @service.handles(BookCourier)
    async def book(command: BookCourier, context: Context) -> Done | Failure:
        return await carried_out(command, context, "courier")

    @service.handles(CancelCourier)
    async def cancel(command: CancelCourier, context: Context) -> Done | Failure:
        return await carried_out(command, context, "undo courier")

    @service.handles(PrintLabel)
    async def label(command: PrintLabel, context: Context) -> Done | Failure:
        return await carried_out(command, context, "label")

    @service.handles(VoidLabel)
    async def void_label(command: VoidLabel, context: Context) -> Done | Failure:
        return await carried_out(command, context, "undo label")

    return service


def _bookkeeping(sessions: async_sessionmaker[AsyncSession]) -> Service:
    service = Service("bookkeeping", sessions=sessions)

    @service.subscribes(OrderClosed)
    async def closed(event: OrderClosed, context: Context) -> None:
        await written(context, event.order_id, "closed completed" if event.completed else "closed compensated")

    return service
