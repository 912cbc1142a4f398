"""Calling an application about an alarm: one call at a time, in bounded time, with no harm to the engine."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from threading import Thread
from typing import Final

from orchestrator.watchdog import Alarm
from orchestrator.watching import Watcher

logger = logging.getLogger(__name__)

CALL_WITHIN: Final = timedelta(seconds=10)
_KEPT: Final = 100


class AlarmHook(Watcher):
    """Hands alarms on, in order.

    Args:
        call: awaited in the event loop if it is async, else called in a thread of its own.
        within: how long a call may take. A thread cannot be ended: until it is over, no other alarm is handed on.
    """

    def __init__(self, call: Callable[[Alarm], object], *, within: timedelta = CALL_WITHIN) -> None:
        self._call, self._within = call, within
        self._due: deque[Alarm] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._thread: Thread | None = None

    def alarmed(self, alarm: Alarm) -> None:
        """Have it handed on soon."""
        if len(self._due) >= _KEPT:
            logger.error("An alarm is not handed on, %d others are ahead of it: %s", _KEPT, alarm.text)
            return
        self._due.append(alarm)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work(), name="alarms")

    async def idle(self) -> None:
        """Wait until all is handed on."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def _work(self) -> None:
        while self._due:
            await self._hand_on(self._due.popleft())

    async def _hand_on(self, alarm: Alarm) -> None:
        limit = asyncio.timeout(self._within.total_seconds())
        try:
            async with limit:
                await self._called(alarm)
        except Exception:  # whatever a hook raises, the next alarm is handed on
            if limit.expired():
                logger.error("A hook for alarms took longer than %s, for: %s", self._within, alarm.text)  # noqa: TRY400
            else:
                logger.exception("A hook for alarms raised, for: %s", alarm.text)

    async def _called(self, alarm: Alarm) -> None:
        result = self._call(alarm) if inspect.iscoroutinefunction(self._call) else await self._in_thread(alarm)
        if inspect.isawaitable(result):
            await result

    async def _in_thread(self, alarm: Alarm) -> object:
        if self._thread is not None and self._thread.is_alive():
            raise RuntimeError("its call for an earlier alarm has not ended yet")
        done: Future[object] = Future()
        done.set_running_or_notify_cancel()  # so that giving it up does not cancel it under the thread

        def call() -> None:
            try:
                done.set_result(self._call(alarm))
            except BaseException as error:  # noqa: BLE001 - a thread's SystemExit must not end the loop
                done.set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))

        self._thread = Thread(target=call, name="alarm hook", daemon=True)
        self._thread.start()
        return await asyncio.wrap_future(done)
