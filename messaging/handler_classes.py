"""Handlers as classes, for those that need collaborators of their own.

class ShowMessageHandler(CommandHandler[ShowMessage]):
    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    async def handle(self, command: ShowMessage, context: Context) -> MessageShown: ...

service.register(ShowMessageHandler(screen))
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, ClassVar, Generic, Protocol, TypeVar, get_args, get_origin

from messaging.context import Context
from messaging.envelope import EVENTS_EXCHANGE, ExchangeKind
from messaging.messages import Accepted, Command, Event, Failure, Message, Reply
from messaging.retry import Retry

R = TypeVar("R", bound=Reply)
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
E_co = TypeVar("E_co", bound=Event, covariant=True)


class CommandHandler(ABC, Generic[C_co]):
    """Carries out one kind of command. One instance handles all of them, many at a time."""

    timeout: ClassVar[timedelta | None] = None
    """How long one run may take, where `handle` is async; see `Service.handles`."""
    exchange: ClassVar[str] = ""
    """Through which exchange the command comes too; `kind`, `key` and `absolute` as for `Service.handles`."""
    kind: ClassVar[ExchangeKind] = "direct"
    key: ClassVar[str] = ""
    absolute: ClassVar[bool] = False
    max_in_flight: ClassVar[int | None] = None
    """How many this handler handles at a time, if fewer than its service does."""
    retry: ClassVar[Retry | None] = None
    """What follows when it raises, if not what the service says; see `Service`."""

    @abstractmethod
    def handle(  # which reply it is follows from the command
        self: CommandHandler[Command[R]],
        command: C_co,  # type: ignore[misc]
        context: Context[Any],
        /,
    ) -> Awaitable[R | Failure | Accepted] | R | Failure | Accepted:
        """Carry out the command and return its reply or a failure; `async` or plain, as handlers that are functions.

        What it returns is stored and answered; when it raises, nothing has happened and the sender is told to
        try again.
        """

    @property
    def answered(self: CommandHandler[Command[R]]) -> Answered[R]:
        """For type checkers alone: the reply of the command."""
        raise NotImplementedError


class EventHandler(ABC, Generic[E_co]):
    """Is told of one kind of event. One instance is told of all of them, many at a time."""

    exchange: ClassVar[str] = EVENTS_EXCHANGE
    kind: ClassVar[ExchangeKind] = "topic"
    key: ClassVar[str] = ""
    """The routing key to bind; the event's wire name when empty."""
    timeout: ClassVar[timedelta | None] = None
    """How long one run may take, where `handle` is async; see `Service.handles`."""
    absolute: ClassVar[bool] = False
    """The exchange is somebody else's; see `Service.subscribes`."""
    max_in_flight: ClassVar[int | None] = None
    """How many this handler handles at a time, if fewer than its service does."""
    retry: ClassVar[Retry | None] = None
    """What follows when it raises, if not what the service says; see `Service`."""

    @abstractmethod
    def handle(
        self,
        event: E_co,  # type: ignore[misc]
        context: Context[Any],
        /,
    ) -> Awaitable[None] | None:
        """Do what is to be done about the event; when it raises, nothing has happened, and it is told again."""


class Answered(Generic[R]):
    """A reply's type, exactly."""


class AnswersLater(Protocol[R]):
    """A command's handler whose coroutine returns the reply of that command."""

    @property
    def answered(self) -> Answered[R]:
        """The reply of its command."""
        ...

    @property
    def handle(self) -> Callable[..., Awaitable[R | Failure | Accepted]]:
        """What carries it out."""
        ...


class AnswersAtOnce(Protocol[R]):
    """A command's handler that returns the reply of that command from a plain function."""

    @property
    def answered(self) -> Answered[R]:
        """The reply of its command."""
        ...

    @property
    def handle(self) -> Callable[..., R | Failure | Accepted]:
        """What carries it out."""
        ...


def message_of(handler: type[Any]) -> type[Message] | None:
    """Read `ShowMessage` out of the base `CommandHandler[ShowMessage]`, or of a base of one's own that hands it on."""
    for base in handler.__mro__:
        for spelled in getattr(base, "__orig_bases__", ()):
            wanted = _wanted_by(get_origin(spelled))
            for argument in get_args(spelled) if wanted is not None else ():
                if isinstance(argument, type) and issubclass(argument, wanted or Message):
                    return argument
    return None


def _wanted_by(base: Any) -> type[Message] | None:
    if not isinstance(base, type) or not issubclass(base, (CommandHandler, EventHandler)):
        return None
    return Command if issubclass(base, CommandHandler) else Event
