"""A command and event bus for services in Python, useful with sagas and without.

    customers = Service("customers")

    @customers.handles(ReserveCredit)
    async def reserve_credit(command: ReserveCredit) -> CreditReserved | CreditRefused: ...

The parts that need a broker's client or a database are imported from where they live:
`messaging.memory`, `messaging.rabbitmq`, `messaging.sql`, `messaging.settings`, `messaging.wiring`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

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
from messaging.messages import Accepted, Command, Event, Failure, Reply

if TYPE_CHECKING:
    from messaging.blocking import BlockingBus
    from messaging.bus import Bus
    from messaging.consumer import ServiceRunner
    from messaging.context import Context
    from messaging.envelope import Destination
    from messaging.handler_classes import CommandHandler, EventHandler
    from messaging.middleware import Middleware
    from messaging.retry import Retry
    from messaging.service import Service
    from messaging.serving import run_services
    from messaging.transport import QueueOptions

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


_LATER = {
    "Service": "messaging.service",
    "Context": "messaging.context",
    "CommandHandler": "messaging.handler_classes",
    "EventHandler": "messaging.handler_classes",
    "Retry": "messaging.retry",
    "QueueOptions": "messaging.transport",
    "Destination": "messaging.envelope",
    "ServiceRunner": "messaging.consumer",
    "Bus": "messaging.bus",
    "BlockingBus": "messaging.blocking",
    "run_services": "messaging.serving",
    "Middleware": "messaging.middleware",
}


def __getattr__(name: str) -> object:
    """Import what runs only when it is asked for: modules of messages load quickly."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_LATER[name]), name)
    return found
