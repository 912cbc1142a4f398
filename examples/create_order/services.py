"""The four services of the shop. Each handler is one transaction: claim, work, ledger, stored answer."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import select

from create_order.database import Customer, Entry, Order, Payment, Sessions, Stock
from create_order.messages import (
    CancelPayment,
    CreateOrder,
    CreditRefused,
    CreditReleased,
    CreditReserved,
    OrderCancelled,
    OrderCompleted,
    OrderCreated,
    OrderRefused,
    OrderRejected,
    OrderShipped,
    PaymentCancelled,
    PaymentCaptured,
    PaymentRequested,
    ReceiptSent,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    RequestPayment,
    ReserveCredit,
    ReserveStock,
    SendReceipt,
    ShipOrder,
    StockRefused,
    StockReleased,
    StockReserved,
)
from create_order.rehearsal import rehearsed
from messaging import Context, Failure, Service

orders = Service("orders", sessions=Sessions)
customers = Service("customers", sessions=Sessions)
warehouse = Service("warehouse", sessions=Sessions)
payments = Service("payments", sessions=Sessions, publishes=[PaymentCaptured])


# -- orders


@orders.handles(CreateOrder)
async def create_order(command: CreateOrder, context: Context) -> OrderCreated | OrderRefused | Failure:
    if trouble := await rehearsed("create-order", command.order_id, context):
        return trouble
    if command.amount_cents <= 0:
        return OrderRefused(reason="an order is for more than nothing")
    context.session.add(
        Order(id=command.order_id, customer=command.customer, amount_cents=command.amount_cents, status="pending")
    )
    context.session.add(Entry(order_id=command.order_id, service="orders", what="created"))
    return OrderCreated()


@orders.handles(RejectOrder)
async def reject_order(command: RejectOrder, context: Context) -> OrderCancelled:
    order = await context.session.get_one(Order, command.order_id, with_for_update=True)
    order.status = "rejected"
    context.session.add(Entry(order_id=order.id, service="orders", what="rejected", of=command.reason))
    return OrderCancelled()


@orders.handles(SendReceipt)
async def send_receipt(command: SendReceipt, context: Context) -> ReceiptSent | Failure:
    if trouble := await rehearsed("send-receipt", command.order_id, context):
        return trouble
    context.session.add(Entry(order_id=command.order_id, service="orders", what="receipt", of=command.tracking))
    return ReceiptSent()


@orders.subscribes(OrderCompleted)
async def order_completed(event: OrderCompleted, context: Context) -> None:
    order = await context.session.get_one(Order, event.order_id, with_for_update=True)
    order.status = "completed"
    context.session.add(Entry(order_id=order.id, service="orders", what="told completed", of=event.tracking))


@orders.subscribes(OrderRejected)
async def order_rejected(event: OrderRejected, context: Context) -> None:
    context.session.add(Entry(order_id=event.order_id, service="orders", what="told rejected", of=event.reason))


# -- customers


@customers.handles(ReserveCredit)
async def reserve_credit(command: ReserveCredit, context: Context) -> CreditReserved | CreditRefused | Failure:
    if trouble := await rehearsed("reserve-credit", command.order_id, context):
        return trouble
    customer = await context.session.get(Customer, command.customer, with_for_update=True)
    if customer is None:
        return CreditRefused(reason=f"there is no customer {command.customer}")
    if customer.free_cents < command.amount_cents:
        return CreditRefused(reason="limit reached", available_cents=customer.free_cents)
    customer.free_cents -= command.amount_cents
    context.session.add(_credit(command.order_id, "reserved", customer.name, command.amount_cents))
    return CreditReserved()


@customers.handles(ReleaseCredit)
async def release_credit(command: ReleaseCredit, context: Context) -> CreditReleased:
    reserved = await _entry(context, command.order_id, "customers", "reserved")
    customer = await context.session.get_one(Customer, reserved.of, with_for_update=True)
    customer.free_cents += reserved.amount
    context.session.add(_credit(command.order_id, "released", customer.name, reserved.amount))
    return CreditReleased()


def _credit(order_id: UUID, what: str, customer: str, cents: int) -> Entry:
    return Entry(order_id=order_id, service="customers", what=what, of=customer, amount=cents)


# -- warehouse


@warehouse.handles(ReserveStock)
async def reserve_stock(command: ReserveStock, context: Context) -> StockReserved | StockRefused | Failure:
    if trouble := await rehearsed("reserve-stock", command.order_id, context):
        return trouble
    stock = await context.session.get(Stock, command.sku, with_for_update=True)
    if stock is None or stock.free < command.quantity:
        return StockRefused(reason=f"not enough of {command.sku}", available=stock.free if stock else 0)
    stock.free -= command.quantity
    context.session.add(_stock(command.order_id, "reserved", stock.sku, command.quantity))
    return StockReserved(warehouse=stock.warehouse)


@warehouse.handles(ReleaseStock)
async def release_stock(command: ReleaseStock, context: Context) -> StockReleased:
    reserved = await _entry(context, command.order_id, "warehouse", "reserved")
    stock = await context.session.get_one(Stock, reserved.of, with_for_update=True)
    stock.free += reserved.amount
    context.session.add(_stock(command.order_id, "released", stock.sku, reserved.amount))
    return StockReleased()


@warehouse.handles(ShipOrder)
async def ship_order(command: ShipOrder, context: Context) -> OrderShipped | Failure:
    if trouble := await rehearsed("ship-order", command.order_id, context):
        return trouble
    reserved = await _entry(context, command.order_id, "warehouse", "reserved")
    context.session.add(_stock(command.order_id, "shipped", reserved.of, reserved.amount))
    return OrderShipped(tracking=f"{command.warehouse}-{command.order_id}")


def _stock(order_id: UUID, what: str, sku: str, quantity: int) -> Entry:
    return Entry(order_id=order_id, service="warehouse", what=what, of=sku, amount=quantity)


# -- payments


@payments.handles(RequestPayment)
async def request_payment(command: RequestPayment, context: Context) -> PaymentRequested | Failure:
    if trouble := await rehearsed("request-payment", command.order_id, context):
        return trouble
    context.session.add(Payment(order_id=command.order_id, amount_cents=command.amount_cents, status="requested"))
    context.session.add(_payment(command.order_id, "requested", command.amount_cents))
    return PaymentRequested()


@payments.handles(CancelPayment)
async def cancel_payment(command: CancelPayment, context: Context) -> PaymentCancelled:
    payment = await context.session.get_one(Payment, command.order_id, with_for_update=True)
    refund = payment.amount_cents if payment.status == "captured" else 0
    payment.status = "cancelled"
    context.session.add(_payment(payment.order_id, "cancelled", payment.amount_cents))
    if refund:
        context.session.add(_payment(payment.order_id, "refunded", refund))
    return PaymentCancelled(refunded_cents=refund)


async def pay(order_id: UUID) -> bool:
    """Take a customer's payment, as the payment provider's web hook would; False if none is asked for.

    The event is written in the transaction of the payment: both happen, or neither.
    """
    async with Sessions.begin() as session:
        payment = await session.get(Payment, order_id, with_for_update=True)
        if payment is None or payment.status != "requested":
            return False
        payment.status = "captured"
        session.add(_payment(order_id, "captured", payment.amount_cents))
        await payments.publish(PaymentCaptured(order_id=order_id, payment=f"pay-{order_id}"), session=session)
    return True


def _payment(order_id: UUID, what: str, cents: int) -> Entry:
    return Entry(order_id=order_id, service="payments", what=what, amount=cents)


async def _entry(context: Context, order_id: UUID, service: str, what: str) -> Entry:
    """The one line of a ledger; an undo comes only where there is one."""
    return (
        await context.session.scalars(
            select(Entry).where(Entry.order_id == order_id, Entry.service == service, Entry.what == what)
        )
    ).one()
