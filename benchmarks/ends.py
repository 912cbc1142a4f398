"""How many sagas have ended, as an orchestrator tells it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from orchestrator.watching import Change, Watcher


class Ends(Watcher):
    """Counts the sagas that have ended, and wakes whoever waits for more."""

    def __init__(self) -> None:
        self.count = 0
        self.more = asyncio.Event()

    def add(self, ended: int) -> None:
        """So many more."""
        self.count += ended
        if ended:
            self.more.set()

    def committed(self, changes: Sequence[Change]) -> None:
        """A transaction has committed."""
        self.add(sum(change.after.status.terminal for change in changes))
