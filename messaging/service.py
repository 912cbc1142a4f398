"""Services: which function handles which message, checked when it is registered."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from messaging.codec import Limits, MessageRegistry
from messaging.context import Context
from messaging.envelope import EVENTS_EXCHANGE
from messaging.errors import HandlerDefinitionError, MessageDefinitionError, SettingsError
from messaging.handler_classes import AnswersAtOnce, AnswersLater, EventHandler, message_of
from messaging.handlers import Handler, checked_handler, session_kind_of
from messaging.messages import Command, Event, Failure, Message, Reply
from messaging.retry import Retry
from messaging.transport import Binding, QueueSpec

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import sessionmaker

R = TypeVar("R", bound=Reply)
C = TypeVar("C", bound=Command[Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
E = TypeVar("E", bound=Event)
E_co = TypeVar("E_co", bound=Event, covariant=True)


class Service:
    """A named consumer: one queue, and a function for each kind of message that comes to it.

        customers = Service("customers", sessions=CustomerSessions)

        @customers.handles(ReserveCredit)
        async def reserve_credit(command: ReserveCredit, context: Context) -> CreditReserved | Failure: ...

    With `sessions`, the claim of the command, the handler's work, the stored answer and what it publishes
    are one transaction, and a repeated command is answered without running again. Without `sessions`
    nothing is deduplicated: handlers must bear being run twice.

    Args:
        name: also the name of its queue.
        sessions: makes the sessions of the service's own database. With an `async_sessionmaker` handlers
            are coroutine functions (a plain function runs in a thread and may not ask for the session);
            with a `sessionmaker` they are plain functions, each run in a thread with a `Session`. On
            PostgreSQL the transaction waits at most 5 s for a lock, unless the handler sets `lock_timeout`.
        max_in_flight: how many messages are handled at a time.
        retry: for events and for commands that nobody waits for, when their handler raises. Other
            commands are answered `retry`, and their sender decides.
        schema: the database schema of the inbox and outbox tables.
        limits: what a body may be at most; what the runner says when None.
    """

    def __init__(
        self,
        name: str,
        *,
        sessions: async_sessionmaker[Any] | sessionmaker[Any] | None = None,
        max_in_flight: int = 64,
        retry: Retry = Retry(max_attempts=10, backoff=timedelta(seconds=1), cap=timedelta(minutes=10)),  # noqa: B008
        schema: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        if max_in_flight < 1:
            raise SettingsError(f"max_in_flight of service {name!r} must be 1 or more, not {max_in_flight}")
        self.name, self.sessions, self.schema, self.limits = name, sessions, schema, limits
        self.max_in_flight, self.retry = max_in_flight, retry
        self.session_kind = session_kind_of(name, sessions)
        self.registry = MessageRegistry()
        self._handlers: dict[str, Handler] = {}
        self._bindings: list[Binding] = []

    def handles(self, command_class: type[C]) -> HandlesCommand[C]:
        """Register the function below as the one that carries out this command.

        It takes the command, and a `Context` if it wants; it returns the command's reply or a failure.
        What it returns is stored and answered; when it raises, nothing has happened and the sender is
        told to try again.

        Raises:
            HandlerDefinitionError: the function does not fit the command or the service.
        """
        return HandlesCommand(self, command_class)

    def subscribes(
        self, event_class: type[E], *, exchange: str = EVENTS_EXCHANGE, kind: str = "topic", key: str = ""
    ) -> HandlesEvent[E]:
        """Register the function below to be told of this event; it returns nothing.

        Args:
            event_class: the event.
            exchange: where it is published.
            kind: `topic`, `direct` or `fanout`.
            key: the routing key to bind; the event's wire name when empty.

        Raises:
            HandlerDefinitionError: the function does not fit the event or the service.
        """
        return HandlesEvent(self, event_class, Binding(key or event_class.wire_name, exchange, kind))

    @overload
    def register(self, handler: AnswersLater[R], /) -> None: ...
    @overload
    def register(self, handler: AnswersAtOnce[R], /) -> None: ...
    @overload
    def register(self, handler: EventHandler[Any], /) -> None: ...
    def register(self, handler: Any, /) -> None:
        """Register an instance of a handler class; it is held to what functions are.

        Raises:
            HandlerDefinitionError: it does not fit its message or the service.
        """
        is_class = isinstance(handler, type)
        cls: type[Any] = handler if is_class else type(handler)
        message = message_of(cls)
        if message is None:
            wanted = "is no handler class. Write class ...(CommandHandler[...]) or class ...(EventHandler[...])"
            raise HandlerDefinitionError(self.name, cls.__qualname__, wanted)
        if is_class:
            problem = f"is registered as a class. Register an instance of it: register({cls.__name__}())"
            raise HandlerDefinitionError(self.name, cls.__qualname__, problem)
        binding = None
        if issubclass(cls, EventHandler):
            binding = Binding(cls.key or message.wire_name, cls.exchange, cls.kind)
        self.add(message, handler.handle, binding=binding, names=_callers_names())

    def discover(self, package: str | ModuleType) -> tuple[Handler, ...]:
        """Import all modules of a package, and register the handler classes that are written there.

        Functions decorated with this service's `handles` and `subscribes` are registered by the import.
        Abstract classes are bases; one that is registered already is left alone; `__main__` is not imported.

        Args:
            package: it, or its name; a module without others below will do.

        Returns:
            The service's handlers that are written in the package.

        Raises:
            DiscoveryError: a module cannot be imported, a class cannot be made an instance of without
                arguments, or there is no handler at all.
            HandlerDefinitionError: one of them does not fit.
        """
        from messaging.discovery import discover

        return discover(self, package)

    def handler_of(self, wire_name: str) -> Handler | None:
        """Return who handles a message of this wire name."""
        return self._handlers.get(wire_name)

    @property
    def handlers(self) -> tuple[Handler, ...]:
        """All that are registered, in order."""
        return tuple(self._handlers.values())

    def queue_spec(self) -> QueueSpec:
        """Describe the queue this service consumes, with a binding for each subscription."""
        return QueueSpec(self.name, tuple(dict.fromkeys(self._bindings)))

    def add(
        self,
        message: type[Message],
        function: Callable[..., Any],
        *,
        binding: Binding | None = None,
        names: dict[str, Any] | None = None,
    ) -> None:
        """Register a function for a command or an event; what the decorators do.

        Args:
            message: the class it handles.
            function: the handler.
            binding: what brings it to the queue, for an event.
            names: those its annotations may use beside its module's.

        Raises:
            HandlerDefinitionError: the function does not fit.
        """
        handler = checked_handler(self.name, self.session_kind, message, function, names or {})
        try:
            self.registry.register(message)
        except MessageDefinitionError as error:
            raise HandlerDefinitionError(self.name, handler.name, f"cannot be told apart: {error}") from error
        known = self._handlers.setdefault(message.wire_name, handler)
        if known is not handler:
            raise HandlerDefinitionError(
                self.name,
                handler.name,
                f"handles {message.__name__}, which {known.name} handles already. Keep one of them",
            )
        if binding is not None:
            self._bindings.append(binding)


@dataclass(frozen=True, slots=True)
class HandlesCommand(Generic[C_co]):
    """The decorator that `Service.handles` returns."""

    service: Service
    message: type[C_co]

    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co], Awaitable[R | Failure]], /
    ) -> Callable[[C_co], Awaitable[R | Failure]]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co, Context[Any]], Awaitable[R | Failure]], /
    ) -> Callable[[C_co, Context[Any]], Awaitable[R | Failure]]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co], R | Failure], /
    ) -> Callable[[C_co], R | Failure]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co, Context[Any]], R | Failure], /
    ) -> Callable[[C_co, Context[Any]], R | Failure]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register the handler and return it unchanged."""
        self.service.add(self.message, handler, names=_callers_names())
        return handler


@dataclass(frozen=True, slots=True)
class HandlesEvent(Generic[E_co]):
    """The decorator that `Service.subscribes` returns."""

    service: Service
    message: type[E_co]
    binding: Binding

    @overload
    def __call__(self, handler: Callable[[E_co], Awaitable[None]], /) -> Callable[[E_co], Awaitable[None]]: ...
    @overload
    def __call__(
        self, handler: Callable[[E_co, Context[Any]], Awaitable[None]], /
    ) -> Callable[[E_co, Context[Any]], Awaitable[None]]: ...
    @overload
    def __call__(self, handler: Callable[[E_co], None], /) -> Callable[[E_co], None]: ...
    @overload
    def __call__(self, handler: Callable[[E_co, Context[Any]], None], /) -> Callable[[E_co, Context[Any]], None]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register the handler and return it unchanged."""
        self.service.add(self.message, handler, binding=self.binding, names=_callers_names())
        return handler


def _callers_names() -> dict[str, Any]:
    """The local names where a decorator stands, which the handler's annotations may use."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame and frame.f_back
    return dict(frame.f_locals) if frame else {}
