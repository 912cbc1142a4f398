"""Calling a handler: through its middleware, within its time limit, in the loop or in a thread."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextvars import copy_context
from functools import partial
from typing import Any

from messaging.context import Context
from messaging.crossing import Here, through_loop
from messaging.envelope import Envelope
from messaging.errors import HandlerTimeout
from messaging.handlers import Handler
from messaging.messages import Message
from messaging.middleware import Composed, Received, Result, passed_on
from messaging.transport import Outgoing


class Calling:
    """Calls the handlers of one service."""

    def __init__(self, service: str, threads: Executor, around: Composed) -> None:
        self._service, self._threads = service, threads
        self._around_handler, self._around_publish = around.handler, around.publish

    async def call(self, handler: Handler, message: Message, envelope: Envelope, context: Context[Any]) -> Result:
        """Call it from the loop; a plain function in a thread."""
        if self._around_handler is None and self._around_publish is None:
            return await self._called(handler, message, context)
        received = Received(message, envelope, context, self._service, handler.name)
        return await self._through(received, lambda passed: self._called(handler, passed.message, passed.context))

    def call_here(
        self,
        handler: Handler,
        message: Message,
        envelope: Envelope,
        context: Context[Any],
        loop: asyncio.AbstractEventLoop,
    ) -> Result:
        """Call a plain function in this thread, which has the transaction; its middleware runs in the loop."""
        if self._around_handler is None and self._around_publish is None:
            return _plainly(handler, message, context)
        received = Received(message, envelope, context, self._service, handler.name)

        async def through(here: Here) -> Result:
            return await self._through(
                received, lambda passed: here(partial(_plainly, handler, passed.message, passed.context))
            )

        return through_loop(loop, through)

    async def _called(self, handler: Handler, message: Message, context: Context[Any]) -> Result:
        if handler.is_async:
            return await _within_limit(handler, _arguments(handler, message, context))
        loop = asyncio.get_running_loop()
        variables = copy_context()
        return await loop.run_in_executor(self._threads, lambda: variables.run(_plainly, handler, message, context))

    async def _through(self, received: Received, end: Callable[[Received], Awaitable[Result]]) -> Result:
        """Call through middleware, then pass on what was published."""
        around = self._around_handler
        result = await (end(received) if around is None else around(received, end))
        if self._around_publish is not None:
            outgoing, written = received.context.outgoing, list[Outgoing]()

            async def write(passed: Outgoing) -> None:
                written.append(passed)

            for message in outgoing:  # grows, where middleware publishes
                await passed_on(self._around_publish, message, write)
            outgoing[:] = written
        return result


async def _within_limit(handler: Handler, arguments: tuple[Any, ...]) -> Result:
    result: Result
    if handler.timeout is None:
        result = await handler.function(*arguments)
        return result
    limit, where = asyncio.timeout(handler.timeout.total_seconds()), ""
    try:
        async with limit:
            result = await handler.function(*arguments)
            return result
    except TimeoutError as error:
        if not limit.expired():
            raise
        where = "".join(traceback.format_exception(error))
    # As text: frames that live on would keep a half-read cursor, and with it a connection's locks.
    late = HandlerTimeout(handler.name, handler.timeout)
    late.add_note(f"It was here:\n{where}")
    raise late


def _plainly(handler: Handler, message: Message, context: Context[Any]) -> Result:
    result: Result = handler.function(*_arguments(handler, message, context))
    return result


def _arguments(handler: Handler, message: Message, context: Context[Any]) -> tuple[Any, ...]:
    return (message, context) if handler.takes_context else (message,)
