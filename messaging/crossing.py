"""From a thread into the event loop, and back for what must happen in that thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")

_LOOK_SECONDS: Final = 1.0


class Here(Protocol):
    """Has a function called in the thread that waits; awaited in the loop."""

    async def __call__(self, call: Callable[[], T], /) -> T:
        """Return what it returns, or raise what it raises. It sees the context variables as set here."""
        ...


def through_loop(loop: asyncio.AbstractEventLoop, work: Callable[[Here], Coroutine[Any, Any, T]]) -> T:
    """Run `work` in the loop and wait for it in this thread, which meanwhile does what `work` hands to it.

    Raises:
        RuntimeError: the loop is closed.
    """
    jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run() -> T:
        try:
            return await work(_Desk(jobs))
        finally:
            jobs.put(None)

    coroutine = run()
    try:
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    except RuntimeError:
        coroutine.close()
        raise
    while (job := _next(jobs, loop)) is not None:
        job()
    return future.result()


def through_own_loop(work: Callable[[Here], Coroutine[Any, Any, T]]) -> T:
    """As `through_loop`, in a loop that lives as long as the work, in a thread of its own.

    So this thread has no running loop meanwhile, where Django and others refuse to block.
    """
    jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    async def run() -> T:
        try:
            return await work(_Desk(jobs))
        finally:
            jobs.put(None)

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(copy_context().run, asyncio.run, run())
        while (job := jobs.get()) is not None:
            job()
        return future.result()


class _Desk:
    def __init__(self, jobs: SimpleQueue[Callable[[], None] | None]) -> None:
        self._jobs = jobs

    async def __call__(self, call: Callable[[], T], /) -> T:
        done: Future[T] = Future()
        context = copy_context()
        self._jobs.put(lambda: _fulfil(done, lambda: context.run(call)))
        return await asyncio.wrap_future(done)


def _fulfil(done: Future[T], call: Callable[[], T]) -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(call())
    except BaseException as error:  # noqa: BLE001 - it is raised where it is awaited
        done.set_exception(error)


def _next(jobs: SimpleQueue[Callable[[], None] | None], loop: asyncio.AbstractEventLoop) -> Callable[[], None] | None:
    """What to do next; None when the work is over. A loop that was closed under it never says so."""
    while True:
        try:
            return jobs.get(timeout=_LOOK_SECONDS)
        except Empty:
            if loop.is_closed():
                raise RuntimeError("the event loop was closed while a thread waited for it") from None
