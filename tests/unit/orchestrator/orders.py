"""An order system for the tests: messages, steps and sagas that show one rule each."""

from __future__ import annotations

from datetime import timedelta
from types import new_class
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from messaging.messages import Command, Event, Failure, Reply
from messaging.retry import Retry
from orchestrator import Parallel, Saga, Sequence, Step, WaitForEvent

T = TypeVar("T")

ORDER = UUID(int=7)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


class OrderState(BaseModel):
    order_id: UUID = ORDER
    amount_cents: int = 900
    warehouse: str = ""
    refusal: str = ""
    paid_cents: int = 0
    gift: bool = False
    log: list[str] = []


# -- messages


class Done(Reply):
    pass


class StockReserved(Reply):
    warehouse: str


class Refused(Failure):
    available_cents: int = 0


class CreateOrder(Command[Done]):
    order_id: UUID


class RejectOrder(Command[Done]):
    order_id: UUID
    reason: str = ""


class ReserveCredit(Command[Done], failures=(Refused,)):
    order_id: UUID
    amount_cents: int


class ReleaseCredit(Command[Done]):
    order_id: UUID


class ReserveStock(Command[StockReserved]):
    order_id: UUID


class ReleaseStock(Command[Done]):
    order_id: UUID


class PackGift(Command[Done]):
    order_id: UUID


class UnpackGift(Command[Done]):
    order_id: UUID


class Ship(Command[Done]):
    order_id: UUID


class SendMail(Command[Done]):
    order_id: UUID


class PaymentCaptured(Event):
    order_id: UUID
    cents: int = 0


class OrderPlaced(Event):
    order_id: UUID


class OrderUndone(Event):
    order_id: UUID


class CreditTaken(Event):
    order_id: UUID


# -- steps

TWICE = Retry(max_attempts=2, backoff=SECOND, jitter=0)


class CreatingOrder(Step[OrderState, Done]):
    participant = "orders"
    retry = TWICE
    compensation_retry = TWICE

    def command(self, state: OrderState) -> CreateOrder:
        return CreateOrder(order_id=state.order_id)

    def compensation(self, state: OrderState) -> RejectOrder:
        return RejectOrder(order_id=state.order_id, reason=state.refusal)


class ReservingCredit(Step[OrderState, Done]):
    participant = "customers"
    retry = TWICE
    compensation_retry = TWICE

    def command(self, state: OrderState) -> ReserveCredit:
        return ReserveCredit(order_id=state.order_id, amount_cents=state.amount_cents)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: OrderState) -> ReleaseCredit:
        return ReleaseCredit(order_id=state.order_id)

    def events(self, state: OrderState) -> list[Event]:
        return [CreditTaken(order_id=state.order_id)]


class ReservingStock(Step[OrderState, StockReserved]):
    participant = "warehouse"
    retry = TWICE
    compensation_retry = TWICE

    def command(self, state: OrderState) -> ReserveStock:
        return ReserveStock(order_id=state.order_id)

    def on_reply(self, state: OrderState, reply: StockReserved) -> None:
        state.warehouse = reply.warehouse

    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class PackingGift(Step[OrderState, Done]):
    participant = "warehouse"
    retry = TWICE
    compensation_retry = TWICE

    def when(self, state: OrderState) -> bool:
        return state.gift

    def command(self, state: OrderState) -> PackGift:
        return PackGift(order_id=state.order_id)

    def compensation(self, state: OrderState) -> UnpackGift | None:
        return UnpackGift(order_id=state.order_id) if state.warehouse != "no-unpacking" else None


class AwaitingPayment(WaitForEvent[OrderState, PaymentCaptured]):
    timeout = HOUR

    def awaited_key(self, state: OrderState) -> str:
        return str(state.order_id)

    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)

    def on_event(self, state: OrderState, event: PaymentCaptured) -> None:
        state.paid_cents = event.cents

    def on_expired(self, state: OrderState) -> None:
        state.log = [*state.log, "no payment"]


class Shipping(Step[OrderState, Done]):
    participant = "warehouse"
    pivot = True
    retry = TWICE

    def command(self, state: OrderState) -> Ship:
        return Ship(order_id=state.order_id)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.refusal = failure.reason


class Mailing(Step[OrderState, Done]):
    participant = "mailer"
    retriable = True
    retry = TWICE

    def command(self, state: OrderState) -> SendMail:
        return SendMail(order_id=state.order_id)

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.log = [*state.log, failure.reason]


# -- sagas


class OrderSaga(Saga[OrderState]):
    """A sequence, then a group of two."""

    steps = (CreatingOrder(), Parallel(ReservingCredit(), ReservingStock()))

    def on_completed(self, state: OrderState) -> list[Event]:
        return [OrderPlaced(order_id=state.order_id)]

    def on_compensated(self, state: OrderState) -> list[Event]:
        return [OrderUndone(order_id=state.order_id)]


class GiftSaga(Saga[OrderState]):
    """A group with a sequence inside."""

    steps = (CreatingOrder(), Parallel(ReservingCredit(), Sequence(ReservingStock(), PackingGift())))


class ShippingSaga(Saga[OrderState]):
    """Up to the pivot, and beyond."""

    steps = (CreatingOrder(), Shipping(), Mailing())


class PaymentSaga(Saga[OrderState]):
    """With a wait."""

    steps = (CreatingOrder(), AwaitingPayment(), ReservingCredit())


def with_steps(*steps: Any, base: Any = Saga[OrderState], **settings: Any) -> type[Saga[OrderState]]:
    """Make a saga for one test."""

    def fill(body: dict[str, Any]) -> None:
        body.update(settings, steps=steps)

    saga: type[Saga[OrderState]] = new_class("TestSaga", (base,), exec_body=fill)
    return saga


def variant(step: type[T], **settings: Any) -> type[T]:
    """A step class with other settings or hooks, under the same name."""
    return type(step.__name__, (step,), settings)
