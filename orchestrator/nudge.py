"""Tell engines in this process that something was committed for them; others find it at their next look."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

_lock = threading.Lock()
_listeners: dict[Callable[[], None], asyncio.AbstractEventLoop] = {}


def listen(call: Callable[[], None]) -> None:
    """Have `call` called in the running loop at each nudge, until `forget`."""
    with _lock:
        _listeners[call] = asyncio.get_running_loop()


def forget(call: Callable[[], None]) -> None:
    """End `listen`."""
    with _lock:
        _listeners.pop(call, None)


def nudge() -> None:
    """Nudge every engine of this process; from any thread."""
    with _lock:
        listeners = list(_listeners.items())
    for call, loop in listeners:
        if not loop.is_closed():
            loop.call_soon_threadsafe(call)
