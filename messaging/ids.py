"""Ids: time-ordered for what is new, derived for what must be the same when it is done again."""

from __future__ import annotations

import os
import threading
import time
from typing import Final
from uuid import UUID, uuid5

_DERIVED: Final = UUID("5b6c6d0e-8a57-5d5e-9a0f-6a7d1f0b6f2c")
_lock = threading.Lock()
_last_tick = 0


def new_id() -> str:
    """Return a UUIDv7 as dashed text: random, and after every other that this process has made."""
    tick = _next_tick()
    random = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    value = (tick >> 12) << 80 | 0x7 << 76 | (tick & 0xFFF) << 64 | 0b10 << 62 | random
    return str(UUID(int=value))


def derived_id(*parts: str) -> str:
    """Return the same UUID for the same parts, always and everywhere."""
    return str(uuid5(_DERIVED, "\0".join(parts)))


def _next_tick() -> int:
    """The time in 4096ths of a millisecond, never the same twice and never back."""
    global _last_tick
    now = time.time_ns()
    tick = now // 1_000_000 << 12 | (now % 1_000_000 << 12) // 1_000_000
    with _lock:
        _last_tick = max(tick, _last_tick + 1)
        return _last_tick
