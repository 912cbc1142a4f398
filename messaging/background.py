"""An event loop in a daemon thread, and calls into it from other threads."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future
from concurrent.futures import wait as wait_for
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypeVar

from messaging.errors import TransportError
from messaging.serving import either

logger = logging.getLogger(__name__)


class Living(Protocol):
    """What is kept open in the loop."""

    @property
    def failed(self) -> asyncio.Event:
        """Set when it has ended by itself; closing it raises why."""
        ...


P = TypeVar("P", bound=Living)
T = TypeVar("T")


class Background(Generic[P]):
    """Keeps something open in a loop of its own until `end`. Lives once.

    Args:
        name: of the thread, and in errors.
        opened: opens it, in the loop; its block's end closes it.
    """

    def __init__(self, name: str, opened: Callable[[], AbstractAsyncContextManager[P]]) -> None:
        self._name, self._opened = name, opened
        self._ready: Future[P] = Future()
        self._ended: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether it is over, for whatever reason."""
        return self._ended.done()

    @property
    def part(self) -> P | None:
        """What is open, once it is."""
        return self._ready.result() if self._ready.done() and self._ready.exception() is None else None

    def call(self, work: Callable[[P], Coroutine[Any, Any, T]]) -> T:
        """Wait until it is open, run `work` in the loop, and return its result. Interrupted, it cancels the work.

        Raises:
            TransportError: it ended while this was under way.
            RuntimeError: called in the loop's own thread, which would wait for itself.
            Exception: what opening raised, or the work.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError(f"{self._name} was called in its own loop: use Context, or a Bus, in handlers")
        coroutine = work(self._ready.result())
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError as error:  # the loop is closed
            coroutine.close()
            raise self._over() from error
        try:
            _first_of(future, self._ended)
        except BaseException:
            future.cancel()
            raise
        if not future.done() or future.cancelled():
            raise self._over()
        return future.result()

    async def over(self) -> None:
        """Wait, in another loop, until it is over; raises what ended it, if that was no `end`."""
        await asyncio.wrap_future(self._ended)

    def end(self) -> None:
        """Close what is open, and wait for it; what is being opened is waited for first. Idempotent."""
        _first_of(self._ready, self._ended)
        if self.part is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop.set)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:
            if self._ready.done():
                logger.exception("%s stopped. The next call starts it again", self._name)
            else:
                self._ready.set_exception(error)
            self._ended.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with self._opened() as part:
            self._ready.set_result(part)
            await either(self._stop, part.failed)

    def _over(self) -> TransportError:
        return TransportError(
            f"{self._name} was closed while this was under way; it may have been carried out all the same."
        )


def _first_of(*futures: Future[Any]) -> None:
    wait_for(futures, return_when=FIRST_COMPLETED)
