"""The participants: each handles its commands in one transaction with its inbox, its ledger and its outbox.

A repeated command is answered from the inbox; an undo that overtakes its command is remembered. None of
that is visible here: it is what `sessions=` brings.
"""

from __future__ import annotations

from messaging import Context, Service
from orchestrator.demo.ledgers import CreditHold, Customer, Order, Product, Sessions, StockHold
from orchestrator.demo.messages import (
    CreateOrder,
    CreditRefused,
    CreditReleased,
    CreditReserved,
    OrderCreated,
    OrderPlaced,
    OrderRefused,
    OrderRejected,
    OrderShipped,
    PaymentCaptured,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    ReserveCredit,
    ReserveStock,
    ShipOrder,
    ShippingRefused,
    StockRefused,
    StockReleased,
    StockReserved,
)

orders = Service("orders", sessions=Sessions)
customers = Service("customers", sessions=Sessions)
warehouse = Service("warehouse", sessions=Sessions)
payments = Service("payments", sessions=Sessions)


@orders.handles(CreateOrder)
async def create_order(command: CreateOrder, context: Context) -> OrderCreated | OrderRefused:
    """Note the order, and have the customer asked to pay."""
    product = await context.session.get_one(Product, command.product)
    if not product.sold_here:
        return OrderRefused(reason=f"no {command.product} is sold here")
    context.session.add(
        Order(id=command.order_id, customer=command.customer, product=command.product, status="pending")
    )
    context.publish(OrderPlaced(order_id=command.order_id, customer=command.customer))
    return OrderCreated()


@orders.handles(RejectOrder)
async def reject_order(command: RejectOrder, context: Context) -> OrderRejected:
    """Close the order."""
    order = await context.session.get_one(Order, command.order_id)
    order.status, order.note = "rejected", command.reason
    return OrderRejected()


@customers.handles(ReserveCredit)
async def reserve_credit(command: ReserveCredit, context: Context) -> CreditReserved | CreditRefused:
    """Hold the amount if the customer's limit allows it."""
    customer = await context.session.get_one(Customer, command.customer)
    if customer.free_cents < command.amount_cents:
        reason = f"{customer.name} has {customer.free_cents / 100:.2f} left, not {command.amount_cents / 100:.2f}"
        return CreditRefused(reason=reason, free_cents=customer.free_cents)
    customer.free_cents -= command.amount_cents
    context.session.add(
        CreditHold(order_id=command.order_id, customer=customer.name, amount_cents=command.amount_cents)
    )
    return CreditReserved()


@customers.handles(ReleaseCredit)
async def release_credit(command: ReleaseCredit, context: Context) -> CreditReleased:
    """Give the amount back."""
    hold = await context.session.get_one(CreditHold, command.order_id)
    customer = await context.session.get_one(Customer, hold.customer)
    customer.free_cents += hold.amount_cents
    await context.session.delete(hold)
    return CreditReleased()


@warehouse.handles(ReserveStock)
async def reserve_stock(command: ReserveStock, context: Context) -> StockReserved | StockRefused:
    """Put one aside if there is one."""
    product = await context.session.get_one(Product, command.product)
    if product.shelf_jams and context.attempt == 1:
        raise RuntimeError("the shelf jammed")
    if not product.on_shelf:
        return StockRefused(reason=f"no {product.name} on the shelf")
    product.on_shelf -= 1
    context.session.add(StockHold(order_id=command.order_id, product=product.name))
    return StockReserved(warehouse="north")


@warehouse.handles(ReleaseStock)
async def release_stock(command: ReleaseStock, context: Context) -> StockReleased:
    """Put it back on the shelf."""
    hold = await context.session.get_one(StockHold, command.order_id)
    product = await context.session.get_one(Product, hold.product)
    product.on_shelf += 1
    await context.session.delete(hold)
    return StockReleased()


@warehouse.handles(ShipOrder)
async def ship_order(command: ShipOrder, context: Context) -> OrderShipped | ShippingRefused:
    """Hand the goods to a carrier, if one takes them."""
    product = await context.session.get_one(Product, command.product)
    if not product.carried:
        return ShippingRefused(reason=f"no carrier takes a {product.name}")
    order = await context.session.get_one(Order, command.order_id)
    order.status = "shipped"
    return OrderShipped(tracking=f"{command.warehouse}-{command.order_id}")


@payments.subscribes(OrderPlaced)
async def collect_payment(event: OrderPlaced, context: Context) -> None:
    """Ask the customer to pay. Some never do."""
    customer = await context.session.get_one(Customer, event.customer)
    if customer.pays:
        context.publish(PaymentCaptured(order_id=event.order_id))
