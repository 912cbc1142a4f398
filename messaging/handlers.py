"""Handlers: what a function must look like to handle a message, found out when it is registered."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Any, Union, get_args, get_origin, get_type_hints

from messaging.context import Context
from messaging.errors import HandlerDefinitionError, SettingsError
from messaging.messages import Accepted, Command, Failure, Message
from messaging.retry import Retry


class SessionKind(Enum):
    """Whether a service, or a handler, works in a database transaction, and of which sort."""

    NONE = "no session"
    ASYNC = "an AsyncSession"
    SYNC = "a Session"
    ANY = "a session"
    """What a bare `Context` asks for."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A function and the message it handles."""

    message: type[Message]
    function: Callable[..., Any]
    name: str
    is_async: bool
    takes_context: bool
    replies: tuple[type[Message], ...]
    """What it may return; empty for events."""
    timeout: timedelta | None = None
    """How long one run may take."""
    max_in_flight: int | None = None
    """How many are handled at a time, if fewer than the service handles."""
    retry: Retry | None = None
    """Its own policy, where that is not the service's."""


def session_kind_of(name: str, sessions: object) -> SessionKind:
    """Say what sessions a service has.

    Raises:
        SettingsError: it is no sessionmaker.
    """
    if sessions is None:
        return SessionKind.NONE
    from sqlalchemy.ext.asyncio import async_sessionmaker
    from sqlalchemy.orm import sessionmaker

    if isinstance(sessions, async_sessionmaker):
        return SessionKind.ASYNC
    if isinstance(sessions, sessionmaker):
        return SessionKind.SYNC
    raise SettingsError(
        f"sessions of service {name!r} must be an async_sessionmaker or a sessionmaker, not {sessions!r}"
    )


def checked_handler(
    service: str,
    kind: SessionKind,
    message: type[Message],
    function: Callable[..., Any],
    names: dict[str, Any],
    timeout: timedelta | None = None,
) -> Handler:
    """Read a function's annotations and say how to call it.

    Raises:
        HandlerDefinitionError: it does not fit its message or the service; the text says how to mend it.
    """
    name = getattr(function, "__qualname__", repr(function))

    def refuse(problem: str) -> HandlerDefinitionError:
        return HandlerDefinitionError(service, name, problem)

    try:
        hints = get_type_hints(function, localns={**names})
        parameters = list(inspect.signature(function).parameters.values())
    except (NameError, TypeError, ValueError) as error:
        raise refuse(f"has annotations that cannot be read: {error}. Import what they name at run time") from error
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) not in (1, 2) or len(positional) != len(parameters):
        raise refuse(f"must take ({message.__name__}) or ({message.__name__}, Context), nothing else")
    if problem := _parameter_problem(message, hints.get(positional[0].name)):
        raise refuse(problem)
    asks_for = SessionKind.NONE
    if len(positional) == 2:
        found = _asked_for(hints.get(positional[1].name))
        if found is None:
            raise refuse("must take Context, Context[Session] or Context[None] as its second parameter")
        asks_for = found
    is_async = inspect.iscoroutinefunction(function)
    replies = _replies_of(message)
    problem = _result_problem(message, replies, hints.get("return", inspect.Parameter.empty))
    if problem := problem or _session_problem(kind, asks_for, is_async) or _timeout_problem(timeout, is_async):
        raise refuse(problem)
    return Handler(message, function, name, is_async, len(positional) == 2, replies, timeout)


def limit_problem(wanted: int | None, of_service: int) -> str:
    """Why a handler cannot have this `max_in_flight`; empty when it can."""
    if wanted is None or 1 <= wanted <= of_service:
        return ""
    return f"cannot handle {wanted} at a time: its service handles {of_service}. Say 1 to {of_service}, or nothing"


def _parameter_problem(message: type[Message], annotation: Any) -> str:
    if annotation is None:
        return f"does not say what it takes. Annotate its first parameter with {message.__name__}"
    if isinstance(annotation, type) and issubclass(message, annotation) and issubclass(annotation, Message):
        return ""
    return f"takes {_shown(annotation)}, but is registered for {message.__name__}"


def _asked_for(annotation: Any) -> SessionKind | None:
    if annotation is Context:
        return SessionKind.ANY
    if get_origin(annotation) is not Context:
        return None
    wanted = get_args(annotation)[0]
    if wanted is type(None):
        return SessionKind.NONE
    bases = {base.__module__ + "." + base.__qualname__ for base in getattr(wanted, "__mro__", ())}
    if "sqlalchemy.ext.asyncio.session.AsyncSession" in bases:
        return SessionKind.ASYNC
    return SessionKind.SYNC if "sqlalchemy.orm.session.Session" in bases else None


def _replies_of(message: type[Message]) -> tuple[type[Message], ...]:
    if issubclass(message, Command):
        return (message.reply_type, *message.failure_types, Failure)
    return ()


def _result_problem(message: type[Message], replies: tuple[type[Message], ...], annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return f"does not say what it returns. Annotate it with {_listed(replies) if replies else 'None'}"
    if not replies:
        return "" if annotation is type(None) else f"returns {_shown(annotation)}, but events have no reply"
    is_union = get_origin(annotation) in (Union, types.UnionType)
    for part in get_args(annotation) if is_union else (annotation,):
        if not (isinstance(part, type) and _is_answer(part, replies)):
            return (
                f"returns {_shown(part)}, but {message.__name__} is answered with {_listed(replies)}. "
                f"Return one of these, or name the failure in the command's class"
            )
    return ""


def _is_answer(part: type, replies: tuple[type[Message], ...]) -> bool:
    """A declared answer or a kind of one; of the general `Failure` only itself; or that it comes later."""
    return part in (Failure, Accepted) or any(issubclass(part, reply) for reply in replies if reply is not Failure)


def _session_problem(service: SessionKind, asked: SessionKind, is_async: bool) -> str:
    if service is SessionKind.NONE:
        if asked is SessionKind.NONE:
            return ""
        return "asks for a session, but the service has no sessions. Give it sessions=..., or take Context[None]"
    if service is SessionKind.SYNC and is_async:
        return (
            "is async, but the service's sessions are not. "
            "Make it a plain function, or give the service an async_sessionmaker"
        )
    if asked is SessionKind.NONE:
        return ""
    if service is SessionKind.ASYNC and not is_async:
        return "is a plain function and asks for the session, which is async here. Make it async, or take Context[None]"
    if asked not in (SessionKind.ANY, service):
        return f"asks for {asked.value}, but the service's sessions make {service.value}"
    return ""


def _timeout_problem(timeout: timedelta | None, is_async: bool) -> str:
    if timeout is None:
        return ""
    if timeout <= timedelta(0):
        return f"has a timeout of {timeout}. Make it longer than nothing, or leave it out"
    if not is_async:
        return (
            "has a timeout and is a plain function: it runs in a thread, which cannot be stopped. "
            "Make it async, or bound what it waits for (the client's own timeout, the session's lock_timeout)"
        )
    return ""


def _listed(classes: tuple[type[Message], ...]) -> str:
    return " | ".join(cls.__name__ for cls in classes)


def _shown(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
