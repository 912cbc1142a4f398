"""What the shop's services say to each other: orders that are commands, facts that are replies and events."""

from __future__ import annotations

from messaging import Command, Event, Failure, Reply


class OrderCreated(Reply):
    """The order is in the books, pending."""


class OrderRefused(Failure):
    """The shop does not sell this."""


class CreateOrder(Command[OrderCreated], failures=(OrderRefused,)):
    """Take an order."""

    order_id: str
    customer: str
    product: str
    amount_cents: int


class OrderRejected(Reply):
    """The order is closed; nothing comes of it."""


class RejectOrder(Command[OrderRejected]):
    """Undo `CreateOrder`."""

    order_id: str
    reason: str


class CreditReserved(Reply):
    """The amount is held for this order."""


class CreditRefused(Failure):
    """The customer's limit does not allow it."""

    free_cents: int = 0


class ReserveCredit(Command[CreditReserved], failures=(CreditRefused,)):
    """Hold an amount of a customer's credit."""

    order_id: str
    customer: str
    amount_cents: int


class CreditReleased(Reply):
    """Nothing is held for this order any more."""


class ReleaseCredit(Command[CreditReleased]):
    """Undo `ReserveCredit`."""

    order_id: str


class StockReserved(Reply):
    """The goods are put aside."""

    warehouse: str


class StockRefused(Failure):
    """There is none left."""


class ReserveStock(Command[StockReserved], failures=(StockRefused,)):
    """Put goods aside."""

    order_id: str
    product: str


class StockReleased(Reply):
    """The goods are back on the shelf."""


class ReleaseStock(Command[StockReleased]):
    """Undo `ReserveStock`."""

    order_id: str


class OrderShipped(Reply):
    """The parcel is on its way: no way back from here."""

    tracking: str


class ShippingRefused(Failure):
    """No carrier takes it."""


class ShipOrder(Command[OrderShipped], failures=(ShippingRefused,)):
    """Hand the goods to a carrier."""

    order_id: str
    product: str
    warehouse: str


class OrderPlaced(Event):
    """An order came in; the customer is asked to pay."""

    order_id: str
    customer: str


class PaymentCaptured(Event):
    """The customer has paid."""

    order_id: str
