"""The decorators that register functions with a service, typed so that a handler's parameter and reply are checked."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from messaging.context import Context
from messaging.messages import Accepted, Command, Event, Failure, Message, Reply
from messaging.retry import Retry
from messaging.transport import Binding

if TYPE_CHECKING:
    from messaging.service import Service

R = TypeVar("R", bound=Reply)
F = TypeVar("F", bound=Callable[..., Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
E_co = TypeVar("E_co", bound=Event, covariant=True)
M_co = TypeVar("M_co", bound=Message, covariant=True)


@dataclass(frozen=True, slots=True)
class _Registers(Generic[M_co]):
    """What is registered, and how."""

    service: Service
    message: type[M_co]
    binding: Binding | None
    timeout: timedelta | None
    max_in_flight: int | None
    retry: Retry | None

    def registered(self, handler: F, names: dict[str, Any]) -> F:
        """Register the handler, whose annotations may use these names, and return it unchanged."""
        self.service.add(
            self.message,
            handler,
            binding=self.binding,
            timeout=self.timeout,
            max_in_flight=self.max_in_flight,
            retry=self.retry,
            names=names,
        )
        return handler


@dataclass(frozen=True, slots=True)
class HandlesCommand(_Registers[C_co]):
    """The decorator that `Service.handles` returns."""

    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co], Awaitable[R | Failure | Accepted]], /
    ) -> Callable[[C_co], Awaitable[R | Failure | Accepted]]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co, Context[Any]], Awaitable[R | Failure | Accepted]], /
    ) -> Callable[[C_co, Context[Any]], Awaitable[R | Failure | Accepted]]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co], R | Failure | Accepted], /
    ) -> Callable[[C_co], R | Failure | Accepted]: ...
    @overload
    def __call__(
        self: HandlesCommand[Command[R]], handler: Callable[[C_co, Context[Any]], R | Failure | Accepted], /
    ) -> Callable[[C_co, Context[Any]], R | Failure | Accepted]: ...
    def __call__(self, handler: Any, /) -> Any:
        """Register the handler and return it unchanged."""
        return self.registered(handler, callers_names())


@dataclass(frozen=True, slots=True)
class HandlesEvent(_Registers[E_co]):
    """The decorator that `Service.subscribes` returns."""

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
        return self.registered(handler, callers_names())


def callers_names() -> dict[str, Any]:
    """The local names where a decorator stands, which the handler's annotations may use."""
    frame = inspect.currentframe()
    for _ in range(2):
        frame = frame and frame.f_back
    return dict(frame.f_locals) if frame else {}
