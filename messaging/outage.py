"""A database that cannot be used for a while: everybody waits, one line is logged, nothing is given up."""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from typing import Final

logger = logging.getLogger(__name__)

_SHORTEST_SECONDS: Final = 0.1
_LONGEST_SECONDS: Final = 5.0
_LOOK_AGAIN_SECONDS: Final = 10.0


class Fault(Enum):
    """What to do about an error of the database."""

    AWAY = "away"
    """The database cannot be used now: wait, and do the same again, however long it takes."""
    CONFLICT = "conflict"
    """Another transaction was in the way: roll back and run the whole again, a bounded number of times."""
    OTHER = "other"
    """The work itself is at fault."""


class Outage:
    """Whether a database can be used, as those who use it find out."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._since: float | None = None
        self._over = asyncio.Event()
        self._over.set()
        self._stopping = asyncio.Event()

    async def wait(self, error: BaseException) -> bool:
        """Wait before trying again, longer the longer it lasts; return false if trying is to end."""
        now = asyncio.get_running_loop().time()
        if self._since is None:
            self._since = now
            self._over.clear()
            logger.warning("The %s cannot be used: %s. Waiting until it can.", self._what, error)
        pause = min(max((now - self._since) / 2, _SHORTEST_SECONDS), _LONGEST_SECONDS)
        try:
            await asyncio.wait_for(self._stopping.wait(), pause)
        except TimeoutError:
            return True
        return False

    def ended(self) -> None:
        """Tell that it answered."""
        if self._since is not None:
            self._since = None
            self._over.set()
            logger.warning("The %s can be used again.", self._what)

    async def over(self) -> None:
        """Wait until it answers, or for so long that somebody should look whether it does."""
        if self._since is None:
            return
        try:
            await asyncio.wait_for(self._over.wait(), _LOOK_AGAIN_SECONDS)
        except TimeoutError:
            return

    def stop(self) -> None:
        """End all waiting."""
        self._stopping.set()
