"""Services: which function handles which message, checked when it is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, overload

from messaging.codec import Limits, MessageRegistry
from messaging.decorators import HandlesCommand, HandlesEvent, callers_names
from messaging.envelope import EVENTS_EXCHANGE, ExchangeKind
from messaging.errors import HandlerDefinitionError, MessageDefinitionError, SettingsError
from messaging.handler_classes import AnswersAtOnce, AnswersLater, EventHandler, message_of
from messaging.handlers import Handler, checked_handler, limit_problem, session_kind_of
from messaging.messages import Command, Event, Message, Reply
from messaging.middleware import Middleware
from messaging.outbox_writer import OutboxWriter
from messaging.retry import Retry
from messaging.routing import binding_problem
from messaging.transport import Binding, QueueOptions, QueueSpec

if TYPE_CHECKING:
    from types import ModuleType

    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import sessionmaker

R = TypeVar("R", bound=Reply)
C = TypeVar("C", bound=Command[Any])
E = TypeVar("E", bound=Event)


class Service(OutboxWriter):
    """A named consumer: one queue, and a function for each kind of message that comes to it.

        customers = Service("customers", sessions=CustomerSessions)

        @customers.handles(ReserveCredit)
        async def reserve_credit(command: ReserveCredit, context: Context) -> CreditReserved | Failure: ...

    With `sessions`, the claim of the command, the handler's work, the stored answer and what it publishes
    are one transaction, and a repeated command is answered without running again. Without `sessions`
    nothing is deduplicated: handlers must bear being run twice.

    Outside handlers, `publish` and `send` write to the outbox in a transaction of one's own, on whose commit the
    message leaves; that needs neither a broker nor a running service.

    Args:
        name: also the name of its queue.
        sessions: makes the sessions of the service's own database. With an `async_sessionmaker` handlers
            are coroutine functions (a plain function runs in a thread and may not ask for the session);
            with a `sessionmaker` they are plain functions, each run in a thread with a `Session`. On
            PostgreSQL the transaction waits at most 5 s for a lock, unless the handler sets `lock_timeout`.
        max_in_flight: how many messages are handled at a time.
        prefetch_messages: how many of them a process has at most, those that wait for their turn included; twice
            `max_in_flight` when None.
        retry: for events and for commands that nobody waits for, when their handler raises and has no policy
            of its own. Other commands are answered `retry`, and their sender decides.
        schema: the database schema of the inbox and outbox tables.
        limits: what a body may be at most; what the runner says when None.
        publishes: the events its handlers publish, for those who read its contract (`saga schema`,
            `saga asyncapi`); nothing else depends on it.
        queue: how its queue is declared.
    """

    def __init__(
        self,
        name: str,
        *,
        sessions: async_sessionmaker[Any] | sessionmaker[Any] | None = None,
        max_in_flight: int = 64,
        prefetch_messages: int | None = None,
        retry: Retry = Retry(max_attempts=10, backoff=timedelta(seconds=1), cap=timedelta(minutes=10)),  # noqa: B008
        schema: str | None = None,
        limits: Limits | None = None,
        publishes: Iterable[type[Event]] = (),
        queue: QueueOptions = QueueOptions(),  # noqa: B008
    ) -> None:
        if max_in_flight < 1:
            raise SettingsError(f"max_in_flight of service {name!r} must be 1 or more, not {max_in_flight}")
        if prefetch_messages is not None and prefetch_messages < max_in_flight:
            raise SettingsError(
                f"prefetch_messages of service {name!r} is {prefetch_messages}, so it could never handle its "
                f"max_in_flight of {max_in_flight} at a time. Make it {max_in_flight} or more"
            )
        super().__init__(name, limits=limits, schema=schema)
        self.name, self.sessions, self.schema, self.limits = name, sessions, schema, limits
        self.max_in_flight, self.retry = max_in_flight, retry
        self.prefetch_messages = prefetch_messages or 2 * max_in_flight
        self.publishes, self.queue = tuple(publishes), queue
        self.session_kind = session_kind_of(name, sessions)
        self.registry = MessageRegistry()
        self._handlers: dict[str, Handler] = {}
        self._bindings: dict[str, Binding] = {}
        self._middleware: list[Middleware] = []

    def use(self, *middleware: Middleware) -> None:
        """Put middleware around what this service handles and publishes; the first is outermost.

        To be called before the service is run: it is put together then.
        """
        self._middleware += middleware

    @property
    def middleware(self) -> tuple[Middleware, ...]:
        """What stands around this service, outermost first."""
        return tuple(self._middleware)

    def handles(
        self,
        command_class: type[C],
        *,
        timeout: timedelta | None = None,
        max_in_flight: int | None = None,
        retry: Retry | None = None,
        exchange: str = "",
        kind: ExchangeKind = "direct",
        key: str = "",
        absolute: bool = False,
    ) -> HandlesCommand[C]:
        """Register the function below as the one that carries out this command.

        It takes the command, and a `Context` if it wants; it returns the command's reply or a failure.
        What it returns is stored and answered; when it raises, nothing has happened and the sender is
        told to try again.

        Args:
            command_class: the command.
            timeout: how long one run may take. Then it is cancelled, which counts as raising
                `HandlerTimeout`. For coroutine functions only: a thread cannot be stopped.
            max_in_flight: how many of it are handled at a time, if fewer than the service handles.
            retry: when the function raises and nobody waits for an answer, in place of the service's policy.
            exchange: through which exchange it comes too; it always comes when sent to the service's queue.
            kind: `topic`, `direct` or `fanout`: what that exchange is.
            key: the routing key to bind; the command's wire name when empty.
            absolute: the exchange is somebody else's: named as it stands, without prefix, and never declared.

        Raises:
            HandlerDefinitionError: the function does not fit the command or the service.
        """
        binding = Binding(key or command_class.wire_name, exchange, kind, absolute) if exchange else None
        return HandlesCommand(self, command_class, binding, timeout, max_in_flight, retry)

    def subscribes(
        self,
        event_class: type[E],
        *,
        exchange: str = EVENTS_EXCHANGE,
        kind: ExchangeKind = "topic",
        key: str = "",
        absolute: bool = False,
        timeout: timedelta | None = None,
        max_in_flight: int | None = None,
        retry: Retry | None = None,
    ) -> HandlesEvent[E]:
        """Register the function below to be told of this event; it returns nothing.

        Args:
            event_class: the event.
            exchange: where it is published.
            kind: `topic`, `direct` or `fanout`.
            key: the routing key to bind, with wildcards for a topic exchange; the event's wire name when empty.
            absolute: the exchange is somebody else's: named as it stands, without prefix, and never declared.
            timeout: how long one run may take, as in `handles`.
            max_in_flight: how many of it are handled at a time, if fewer than the service handles.
            retry: when the function raises, in place of the service's policy.

        Raises:
            HandlerDefinitionError: the function does not fit the event or the service.
        """
        binding = Binding(key or event_class.wire_name, exchange, kind, absolute)
        return HandlesEvent(self, event_class, binding, timeout, max_in_flight, retry)

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
        if cls.exchange:
            binding = Binding(cls.key or message.wire_name, cls.exchange, cls.kind, cls.absolute)
        self.add(
            message,
            handler.handle,
            binding=binding,
            timeout=cls.timeout,
            max_in_flight=cls.max_in_flight,
            retry=cls.retry,
            names=callers_names(),
        )

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
        return QueueSpec(
            self.name,
            tuple(dict.fromkeys(self._bindings.values())),
            self.queue.delivery_limit,
            queue_type=self.queue.type,
            consumer_timeout=self.queue.consumer_timeout,
        )

    def binding_of(self, message: type[Message]) -> Binding | None:
        """Return what brings a message to the queue; commands that are only sent there need no binding."""
        return self._bindings.get(message.wire_name)

    def add(
        self,
        message: type[Message],
        function: Callable[..., Any],
        *,
        binding: Binding | None = None,
        timeout: timedelta | None = None,
        max_in_flight: int | None = None,
        retry: Retry | None = None,
        names: dict[str, Any] | None = None,
    ) -> None:
        """Register a function for a command or an event; what the decorators do.

        Args:
            message: the class it handles.
            function: the handler.
            binding: what brings it to the queue, unless it is sent there.
            timeout: how long one run may take.
            max_in_flight: how many are handled at a time, if fewer than the service handles.
            retry: its own policy, in place of the service's.
            names: those its annotations may use beside its module's.

        Raises:
            HandlerDefinitionError: the function does not fit.
        """
        handler = checked_handler(self.name, self.session_kind, message, function, names or {}, timeout)
        others = self._bindings.values()
        if problem := limit_problem(max_in_flight, self.max_in_flight) or binding_problem(binding, others):
            raise HandlerDefinitionError(self.name, handler.name, problem)
        handler = replace(handler, max_in_flight=max_in_flight, retry=retry)
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
            self._bindings[message.wire_name] = binding
