"""How far something is that takes a while: a line now and then, with its rate and when it may be done."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from orchestrator.words import duration

_EVERY_SECONDS: Final = 2.0


class Progress:
    """Says when there is something to tell, so that what is quick tells nothing.

    Args:
        total: how many there are.
        now: when it begins, in seconds of a clock that does not go back.
    """

    def __init__(self, total: int, now: float) -> None:
        self._total, self._begun, self._told_at = total, now, now

    def told(self, done: int, now: float) -> str | None:
        """The line to tell with so many done; None if the last one is not old enough."""
        if now - self._told_at < _EVERY_SECONDS or not 0 < done < self._total:
            return None
        self._told_at = now
        rate = done / (now - self._begun)
        left = timedelta(seconds=(self._total - done) / rate)
        return f"{done:,} of {self._total:,}, {rate:,.3g} a second, about {duration(left)} to go"
