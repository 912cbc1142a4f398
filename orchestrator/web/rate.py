"""How often something may be asked for in a second, by all callers of this process together."""

from __future__ import annotations

import time
from collections.abc import Callable


class Rate:
    """A bucket that holds a second's worth, and is filled as time goes by.

    Args:
        per_second: how often; with 0, never.
        clock: seconds that only grow.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._clock = per_second, clock
        self._left, self._at = float(per_second), clock()

    def take(self) -> bool:
        """Whether there is room for one more; if so, it is taken."""
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
