"""What can go wrong on the bus, by who can act.

    MessagingError
    ├── MessageDefinitionError      the author, when the class is created
    ├── HandlerDefinitionError      the author, when the handler is registered
    ├── DiscoveryError              the author, when a package's handlers are looked for
    ├── SettingsError               whoever configures the process, at start
    ├── UnencodableMessage          the sender, before anything is sent
    ├── NotPassedOn                 the author of a middleware
    ├── HandlerTimeout              the author of the handler, or nobody: it is tried again
    ├── NoReplyToken                the author of the handler, or whoever sent the command
    ├── OutboxRefused               the sender, before anything is written
    ├── DecodeError                 the sender of what was received
    │   └── UnknownMessageType
    ├── PublishError                nothing was confirmed; may be sent again with the same id
    │   ├── Unroutable              the operator: no queue takes this message
    │   ├── NotConfirmed            nobody: the broker was away or refused; it may have arrived
    │   └── MessageTooLarge         the sender
    ├── TransportError              the operator: broker away, or refuses what we declare
    │   ├── TopologyMismatch        what is there is defined otherwise
    │   ├── TopologyMissing         what is needed is not there, and is not ours to declare
    │   └── UnknownQueue            there is no such queue, or it keeps no dead letters
    ├── RequestTimeout              the caller of `request`
    └── CommandRefused              the caller of `request`: the participant answered with a failure

Errors carry their ids as attributes and build their own text: what went wrong, and what to do next.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

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


class NoReplyToken(MessagingError, LookupError):
    """A command brings no token for a later answer."""

    def __init__(self, wire_name: str, message_id: str) -> None:
        self.wire_name, self.message_id = wire_name, message_id
        super().__init__(
            f"command {wire_name!r} ({message_id}) has no reply token: no saga sent it, or its orchestrator's database "
            "is not migrated (saga migrate). Answer it at once"
        )


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


class NotPassedOn(MessagingError):
    """A middleware returned without calling `call_next`, or called it twice where once is the rule."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what}: its middleware did not call call_next exactly once. Call it, or raise to refuse the message."
        )


class HandlerTimeout(MessagingError, TimeoutError):
    """A handler took longer than its time limit; it was cancelled, and what it did is rolled back."""

    def __init__(self, handler: str, timeout: timedelta) -> None:
        self.handler, self.timeout = handler, timeout
        super().__init__(f"handler {handler} took longer than {timeout.total_seconds():g} s and was cancelled")


class OutboxRefused(MessagingError, ValueError):
    """A message cannot go through an outbox as it was asked to; nothing was written."""


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


NO_QUEUE: Final = "no queue takes it"
"""How the text of `Unroutable` begins, also where only that was kept."""


class Unroutable(PublishError):
    """The broker gave the message back: no queue takes it. It did not arrive."""

    def __init__(self, message_id: str, destination: str) -> None:
        super().__init__(
            message_id,
            destination,
            f"{NO_QUEUE}. Start the service that consumes it (it declares its own queue), or correct the destination",
        )


class NotConfirmed(PublishError):
    """The broker was away, refused, or did not confirm in time. The message may have arrived."""


class MessageTooLarge(PublishError):
    """The body is over the configured limit. It was not sent."""


class TransportError(MessagingError):
    """The broker cannot be reached, or refuses what we ask of it."""


class TopologyMismatch(TransportError):
    """A queue or exchange exists with another definition than the code declares."""


class TopologyMissing(TransportError):
    """A process that is to declare nothing does not find what it needs on the broker."""

    def __init__(self, missing: Sequence[str], broker: str) -> None:
        self.missing, self.broker = tuple(missing), broker
        super().__init__(
            f"missing on {broker}: {', '.join(missing)}. This process declares nothing (MESSAGING_TOPOLOGY=passive). "
            "Have it created by a user who may: MESSAGING_TOPOLOGY=passive saga topology apply TARGET..."
        )


class UnknownQueue(TransportError):
    """There is no such queue, or it keeps no dead letters."""

    def __init__(self, queue: str, full_name: str, where: str) -> None:
        self.queue = queue
        super().__init__(
            f"queue {queue!r} has no dead letters: there is no queue {full_name!r} at {where}. "
            "Are the name and the prefix right, and has its service ever run?"
        )


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
