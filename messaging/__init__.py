"""A command and event bus for services in Python, useful with sagas and without.

    customers = Service("customers")

    @customers.handles(ReserveCredit)
    async def reserve_credit(command: ReserveCredit) -> CreditReserved | CreditRefused: ...

The parts that need a broker's client or a database are imported from where they live:
`messaging.memory`, `messaging.rabbitmq`, `messaging.sql`, `messaging.settings`, `messaging.wiring`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from messaging.context import Context
from messaging.envelope import Destination
from messaging.errors import (
    CommandRefused,
    DecodeError,
    DiscoveryError,
    HandlerDefinitionError,
    HandlerTimeout,
    MessageDefinitionError,
    MessagingError,
    NotConfirmed,
    NotPassedOn,
    PublishError,
    RequestTimeout,
    SettingsError,
    TopologyMismatch,
    TopologyMissing,
    TransportError,
    UnencodableMessage,
    Unroutable,
)
from messaging.handler_classes import CommandHandler, EventHandler
from messaging.messages import Accepted, Command, Event, Failure, Reply
from messaging.middleware import Middleware
from messaging.retry import Retry
from messaging.service import Service
from messaging.transport import QueueOptions

if TYPE_CHECKING:
    from messaging.blocking import BlockingBus
    from messaging.bus import Bus
    from messaging.consumer import ServiceRunner
    from messaging.serving import run_services

# Grouped as one meets them: messages, services, sending, what goes wrong.
__all__ = [  # noqa: RUF022
    "Command",
    "Reply",
    "Failure",
    "Accepted",
    "Event",
    "Service",
    "Context",
    "CommandHandler",
    "EventHandler",
    "Retry",
    "QueueOptions",
    "Destination",
    "ServiceRunner",
    "Bus",
    "BlockingBus",
    "run_services",
    "Middleware",
    "MessagingError",
    "MessageDefinitionError",
    "HandlerDefinitionError",
    "DiscoveryError",
    "SettingsError",
    "UnencodableMessage",
    "DecodeError",
    "PublishError",
    "Unroutable",
    "NotConfirmed",
    "TransportError",
    "TopologyMismatch",
    "TopologyMissing",
    "RequestTimeout",
    "CommandRefused",
    "HandlerTimeout",
    "NotPassedOn",
]


def __getattr__(name: str) -> object:
    """Import what runs only when it is asked for: modules of messages and handlers load quickly."""
    if name == "Bus":
        from messaging.bus import Bus

        return Bus
    if name == "BlockingBus":
        from messaging.blocking import BlockingBus

        return BlockingBus
    if name == "ServiceRunner":
        from messaging.consumer import ServiceRunner

        return ServiceRunner
    if name == "run_services":
        from messaging.serving import run_services

        return run_services
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
