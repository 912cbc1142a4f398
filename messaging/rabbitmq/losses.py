"""What aio-pika and aiormq raise when a connection is lost, told apart from what is meant for us."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import Final, TypeVar

from aiormq.exceptions import AMQPError

from messaging.errors import TransportError

log = logging.getLogger(__name__)

T = TypeVar("T")

# What aio-pika and aiormq raise for a broker that is away, slow or of another opinion.
BROKER_ERRORS: Final = (AMQPError, OSError, RuntimeError, TimeoutError, EOFError)


async def unharmed(awaitable: Awaitable[T]) -> T:
    """Await something of aio-pika's, whose `CancelledError` may mean that the connection was lost.

    Raises:
        ConnectionError: it was cancelled, and not because our own task is.
    """
    try:
        return await awaitable
    except asyncio.CancelledError as problem:
        if cancelled_ourselves(problem):
            raise
        raise ConnectionError("connection lost") from None
    except Exception as problem:
        if type(problem) is not Exception:
            raise
        # What aiormq raises for a task of its own that was cancelled before anybody had said why.
        raise ConnectionError("connection lost") from problem


def cancelled_ourselves(problem: BaseException) -> bool:
    """Whether this is the cancellation of our own task, rather than aio-pika's way to say: connection lost."""
    task = asyncio.current_task()
    return isinstance(problem, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def keeps_on(problem: BaseException) -> None:
    """Let a loop that nobody but its owner ends go on, whatever the libraries beneath have raised.

    When a connection is lost in an awkward moment that may be anything: a cancellation, an attribute of None.

    Raises:
        CancelledError: the owner ends it.
    """
    if cancelled_ourselves(problem):
        raise problem
    if not isinstance(problem, (TransportError, asyncio.CancelledError, *BROKER_ERRORS)):
        log.warning("not expected of a lost connection, and taken as one: %s", told(problem), exc_info=problem)


def told(problem: BaseException | None) -> str:
    """What an exception says, or its name when it says nothing."""
    if problem is None or isinstance(problem, asyncio.CancelledError):
        return "no reason given"
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
