"""What the services of the shop say to each other."""

from __future__ import annotations

from uuid import UUID

from messaging import Command, Event, Failure, Reply

# -- orders


class OrderCreated(Reply):
    pass


class OrderRefused(Failure):
    pass


class CreateOrder(Command[OrderCreated], failures=(OrderRefused,)):
    order_id: UUID
    customer: str
    amount_cents: int


class OrderCancelled(Reply):
    pass


class RejectOrder(Command[OrderCancelled]):
    order_id: UUID
    reason: str


class ReceiptSent(Reply):
    pass


class SendReceipt(Command[ReceiptSent]):
    order_id: UUID
    tracking: str


# -- customers


class CreditReserved(Reply):
    pass


class CreditRefused(Failure):
    available_cents: int = 0


class ReserveCredit(Command[CreditReserved], failures=(CreditRefused,)):
    order_id: UUID
    customer: str
    amount_cents: int


class CreditReleased(Reply):
    pass


class ReleaseCredit(Command[CreditReleased]):
    order_id: UUID


# -- warehouse


class StockReserved(Reply):
    warehouse: str


class StockRefused(Failure):
    available: int = 0


class ReserveStock(Command[StockReserved], failures=(StockRefused,)):
    order_id: UUID
    sku: str
    quantity: int


class StockReleased(Reply):
    pass


class ReleaseStock(Command[StockReleased]):
    order_id: UUID


class OrderShipped(Reply):
    tracking: str


class ShippingRefused(Failure):
    pass


class ShipOrder(Command[OrderShipped], failures=(ShippingRefused,)):
    order_id: UUID
    warehouse: str
    address: str


# -- payments


class PaymentRequested(Reply):
    pass


class PaymentRefused(Failure):
    pass


class RequestPayment(Command[PaymentRequested], failures=(PaymentRefused,)):
    order_id: UUID
    amount_cents: int


class PaymentCancelled(Reply):
    refunded_cents: int


class CancelPayment(Command[PaymentCancelled]):
    order_id: UUID


class PaymentCaptured(Event):
    order_id: UUID
    payment: str


# -- what becomes of an order, for whoever wants to know


class OrderCompleted(Event):
    order_id: UUID
    tracking: str


class OrderRejected(Event):
    order_id: UUID
    reason: str
