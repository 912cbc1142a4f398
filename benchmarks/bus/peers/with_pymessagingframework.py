"""PyMessagingFramework 2: persistent like ours, never confirmed, one message at a time; it has no requests.

It prints a line or two per message; they go to the null device. A client of it always consumes the queue it is given,
and all it is sent at once: it has no prefetch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from urllib.parse import unquote, urlsplit

from pika import BasicProperties
from PyMessagingFramework.framework import MessagingFramework
from PyMessagingFramework.utils import BaseCommand, BaseCommandHandler

from benchmarks.bus.measuring import AT_ONCE, Stopwatch, echo_running, options

_PERSISTENT = BasicProperties(delivery_mode=2)


class Book(BaseCommand):
    def __init__(self, order_id: str, customer_id: str, cents: int) -> None:
        self.order_id, self.customer_id, self.cents = order_id, customer_id, cents


class Booked(BaseCommand):
    def __init__(self, booking: str) -> None:
        self.booking = booking


def an_order(number: int) -> Book:
    return Book(f"order-{number:08}", "customer-42", number)


@contextmanager
def connected(url: str, queue: str) -> Iterator[MessagingFramework]:
    """A client that consumes this queue; on return the broker has taken all it sent."""
    parts = urlsplit(url)
    login = [unquote(part or "guest") for part in (parts.username, parts.password)]
    with open(os.devnull, "w") as null, redirect_stdout(null):
        quorum = {"x-queue-type": "quorum"}
        address = parts.hostname, parts.port or 5672
        framework = MessagingFramework(*address, *login, queue, durable=True, declare_queue_arguments=quorum)
        yield framework
        framework.close_connection()


@contextmanager
def sending(chosen: argparse.Namespace) -> Iterator[MessagingFramework]:
    """A client that sends orders to the queue, which exists, and consumes that of the replies."""
    with connected(chosen.broker, chosen.queue):
        pass
    with connected(chosen.broker, f"{chosen.queue}.replies") as framework:
        framework.register_commands_as_producer(Book, routing_key=chosen.queue, properties=_PERSISTENT)
        yield framework


def publish(chosen: argparse.Namespace) -> None:
    """Send orders; the last counts when the connection has been closed in order."""
    with sending(chosen) as framework:
        watch = Stopwatch(chosen.messages)
        for number in range(chosen.messages):
            framework.publish_message(an_order(number))
    watch.stop()


def consume(chosen: argparse.Namespace) -> None:
    """Handle orders that wait in the queue, until the last is acknowledged."""
    with sending(chosen) as framework:
        for number in range(chosen.messages):
            framework.publish_message(an_order(number))
    left = chosen.messages

    class Booking(BaseCommandHandler):
        def handle(self, command: Book) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                framework.broker.channel.stop_consuming()

    with connected(chosen.broker, chosen.queue) as framework:
        framework.register_commands_as_consumer(Book, Booking)
        watch = Stopwatch(chosen.messages)
        framework.start()
    watch.stop()


def request(chosen: argparse.Namespace) -> None:
    """Ask and be answered; each answer lets the next be asked."""
    unasked, waiting = iter(range(1, chosen.messages + 1)), set[str]()

    def ask(number: int) -> None:
        order = an_order(number)
        waiting.add(order.order_id)
        framework.publish_message(order)

    class Answered(BaseCommandHandler):
        def handle(self, command: Booked) -> None:
            waiting.remove(command.booking)
            first = command.booking == an_order(0).order_id
            if first:
                watch.start()
            for number in islice(unasked, AT_ONCE if first else 1):
                ask(number)
            if not waiting:
                framework.broker.channel.stop_consuming()

    with echo_running(chosen):
        with sending(chosen) as framework:
            framework.register_commands_as_consumer(Booked, Answered)
            watch = Stopwatch(chosen.messages)
            ask(0)
            framework.start()
        watch.stop()


def echo(chosen: argparse.Namespace) -> None:
    """Answer until killed."""

    class Booking(BaseCommandHandler):
        def handle(self, command: Book) -> None:
            framework.publish_message(Booked(command.order_id))

    with connected(chosen.broker, chosen.queue) as framework:
        replies = f"{chosen.queue}.replies"
        framework.register_commands_as_consumer(Book, Booking)
        framework.register_commands_as_producer(Booked, routing_key=replies, properties=_PERSISTENT)
        os.write(1, b"ready\n")  # what is printed goes nowhere
        framework.start()


if __name__ == "__main__":
    chosen = options()
    {"publish": publish, "consume": consume, "request": request, "echo": echo}[chosen.task](chosen)
