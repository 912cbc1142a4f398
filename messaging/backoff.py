"""How long to wait before a lost connection is tried again."""

from __future__ import annotations

import random
from typing import Final

_FIRST_SECONDS: Final = 0.1
_MOST_SECONDS: Final = 5.0


class Backoff:
    """Delays that double up to five seconds, with some jitter so that replicas do not come all at once."""

    def __init__(self) -> None:
        self._next = _FIRST_SECONDS

    def next(self) -> float:
        """Seconds to wait now."""
        delay, self._next = self._next, min(_MOST_SECONDS, self._next * 2)
        return delay * random.uniform(0.8, 1.2)

    def reset(self) -> None:
        """All is well again."""
        self._next = _FIRST_SECONDS
