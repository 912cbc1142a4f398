"""What can go wrong on the bus, by who can act.

    MessagingError
    ├── MessageDefinitionError      the author, when the class is created
    ├── HandlerDefinitionError      the author, when the handler is registered
    ├── DiscoveryError              the author, when a package's handlers are looked for
    ├── SettingsError               whoever configures the process, at start
    ├── UnencodableMessage          the sender, before anything is sent
    ├── DecodeError                 the sender of what was received
    │   └── UnknownMessageType
    ├── PublishError                nothing was confirmed; may be sent again with the same id
    │   ├── Unroutable              the operator: no queue takes this message
    │   ├── NotConfirmed            nobody: the broker was away or refused; it may have arrived
    │   └── MessageTooLarge         the sender
    ├── TransportError              the operator: broker away, or refuses what we declare
    │   └── TopologyMismatch
    ├── RequestTimeout              the caller of `request`
    └── CommandRefused              the caller of `request`: the participant answered with a failure

Errors carry their ids as attributes and build their own text: what went wrong, and what to do next.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from messaging.messages import Failure


class MessagingError(Exception):
    """Base of all errors of this package."""


class MessageDefinitionError(MessagingError, TypeError):
    """A message class cannot work as written."""

    def __init__(self, message_class: type, problem: str) -> None:
        self.message_class = message_class
        super().__init__(f"message {message_class.__name__} {problem}.")


class HandlerDefinitionError(MessagingError, TypeError):
    """A handler cannot work as written; raised when it is registered."""

    def __init__(self, service: str, handler: str, problem: str) -> None:
        self.service, self.handler = service, handler
        super().__init__(f"handler {handler} of service {service!r} {problem}.")


class DiscoveryError(MessagingError, ImportError):
    """Handlers cannot be found in a package as it stands."""

    def __init__(self, service: str, module: str, problem: str) -> None:
        self.service, self.module = service, module
        super().__init__(f"looking for handlers of service {service!r}: module {module!r} {problem}.")


class SettingsError(MessagingError, ValueError):
    """A setting is missing or wrong; the text names it."""


class UnencodableMessage(MessagingError, ValueError):
    """A message cannot be written as JSON that every reader and database can hold."""

    def __init__(self, wire_name: str, problem: str) -> None:
        self.wire_name = wire_name
        super().__init__(f"message {wire_name!r} cannot be sent: {problem}. Nothing was sent.")


class DecodeError(MessagingError, ValueError):
    """What was received cannot be read."""

    def __init__(self, problem: str, *, message_id: str = "", queue: str = "") -> None:
        self.problem, self.message_id, self.queue = problem, message_id, queue
        where = ", ".join(
            part for part in (message_id and f"message {message_id}", queue and f"queue {queue!r}") if part
        )
        super().__init__(f"{problem}{f' ({where})' if where else ''}")


class UnknownMessageType(DecodeError):
    """No class is registered for a wire name."""

    def __init__(self, wire_name: str, *, message_id: str = "", queue: str = "") -> None:
        self.wire_name = wire_name
        super().__init__(
            f"no class is registered for message type {wire_name!r}: register it, "
            "or remove the binding if this service should not receive it",
            message_id=message_id,
            queue=queue,
        )


class PublishError(MessagingError):
    """A message was not confirmed by the broker. Sending it again with the same id is safe."""

    def __init__(self, message_id: str, destination: str, problem: str) -> None:
        self.message_id, self.destination, self.problem = message_id, destination, problem
        super().__init__(f"message {message_id} to {destination}: {problem}")


class Unroutable(PublishError):
    """The broker gave the message back: no queue takes it. It did not arrive."""

    def __init__(self, message_id: str, destination: str) -> None:
        super().__init__(
            message_id,
            destination,
            "no queue takes it. Start the service that consumes it (it declares its own queue), "
            "or correct the destination",
        )


class NotConfirmed(PublishError):
    """The broker was away, refused, or did not confirm in time. The message may have arrived."""


class MessageTooLarge(PublishError):
    """The body is over the configured limit. It was not sent."""


class TransportError(MessagingError):
    """The broker cannot be reached, or refuses what we ask of it."""


class TopologyMismatch(TransportError):
    """A queue or exchange exists with another definition than the code declares."""


class RequestTimeout(MessagingError, TimeoutError):
    """No reply came in time. The command may have been carried out."""

    def __init__(self, wire_name: str, message_id: str, timeout: timedelta) -> None:
        self.wire_name, self.message_id, self.timeout = wire_name, message_id, timeout
        super().__init__(
            f"no reply to {wire_name!r} ({message_id}) within {timeout.total_seconds():g} s; "
            "it may have been carried out all the same"
        )


class CommandRefused(MessagingError):
    """The participant answered a request with a failure."""

    def __init__(self, failure: Failure | Any, message_id: str) -> None:
        self.failure, self.message_id = failure, message_id
        super().__init__(f"command {message_id} was refused: {failure.error_code}: {failure.reason}")
