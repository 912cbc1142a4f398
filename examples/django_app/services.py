"""A mailer, which knows nothing of Django. It handles one message at a time, so mails go out in order."""

from __future__ import annotations

from pathlib import Path

from django_app.messages import OrderPaid, OrderPlaced
from messaging import Service

mailer = Service("mailer", max_in_flight=1)


@mailer.subscribes(OrderPlaced)
def confirm(event: OrderPlaced) -> None:
    _write(f"to {event.customer}: thank you for order {event.number}")


@mailer.subscribes(OrderPaid)
def ship(event: OrderPaid) -> None:
    _write(f"to {event.customer}: order {event.number} is on its way")


def _write(line: str) -> None:
    with Path("mails.txt").open("a") as mails:
        mails.write(line + "\n")
