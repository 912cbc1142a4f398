"""Ids that rise with time, so that rows written together lie together and ids order what happened."""

from __future__ import annotations

import os
import time
from threading import Lock
from uuid import UUID

_RANDOM_BITS = 62
_COUNTER_BITS = 12


class RisingIds:
    """Makes UUIDs of version 7, each greater than the one before, whatever the clock does. Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last = 0  # milliseconds and counter as one number

    def __call__(self) -> UUID:
        """Make the next id."""
        with self._lock:
            self._last = max(self._last + 1, (time.time_ns() // 1_000_000) << _COUNTER_BITS)
            milliseconds, counter = self._last >> _COUNTER_BITS, self._last & ((1 << _COUNTER_BITS) - 1)
        random = int.from_bytes(os.urandom(8)) >> 2
        high = milliseconds << 16 | 0x7000 | counter
        return UUID(int=high << 64 | 0b10 << _RANDOM_BITS | random)


new_id = RisingIds()
"""Makes the ids of this process."""
