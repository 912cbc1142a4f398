"""Alarms: what nobody is told of by its own saga, and that somebody should look at.

A check is a question to the store, about all sagas at once; what it finds is told once by each process, until it is
found no more, and again each time it has grown tenfold. An alarm is a line of the log, a metric, and whatever the
application does about it (`on_alarm`). What is asked stands in `alarms`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from orchestrator.backlog import Backlog
from orchestrator.store import SagaStore, StoreTransaction

logger = logging.getLogger(__name__)

_GROWN: Final = 10

Facts: TypeAlias = dict[str, str | int | float]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that somebody should look at."""

    kind: str
    """Which check found it; a word of few, good for a label."""
    about: str
    """What makes it, with the kind, the same alarm when it is found again."""
    text: str
    """What is so, with the ids, and what to do."""
    facts: Mapping[str, str | int | float]
    """The same for machines; with the kind, what the log's line has as `alarm`."""
    size: float = 1
    """How bad: a number of sagas or messages, or seconds. Ten times as much as when it was told is told again."""


@dataclass(frozen=True, slots=True)
class Look:
    """What the checks of one look are asked with."""

    tx: StoreTransaction
    now: datetime
    backlog: Backlog


Check: TypeAlias = Callable[[Look], Awaitable[Sequence[Alarm]]]


async def found(store: SagaStore, checks: Sequence[Check]) -> tuple[Backlog, list[Alarm]]:
    """Ask all of them in one transaction, which writes nothing; and read the backlog, which they share."""
    async with store.transaction() as tx:
        look = Look(tx, await tx.now(), await tx.backlog())
        return look.backlog, [alarm for check in checks for alarm in await check(look)]


class Watchdog:
    """Asks all checks at each look, and tells what is new.

    Args:
        store: where to ask.
        checks: what to ask.
        tell: called with each alarm that is new or has grown, after it was logged; must not raise.
        show: called at each look with what waits in the database; must not raise.
        act: called at each look but the first with what is up; what it raises is logged, and it is called again.
    """

    def __init__(
        self,
        store: SagaStore,
        checks: Sequence[Check],
        tell: Callable[[Alarm], None],
        show: Callable[[Backlog], None] | None = None,
        act: Callable[[Sequence[Alarm]], Awaitable[None]] | None = None,
    ) -> None:
        self._store, self._checks, self._tell, self._show, self._act = store, checks, tell, show, act
        self._told: dict[tuple[str, str], float] = {}
        self._stopping = asyncio.Event()

    async def run(self, every: timedelta) -> None:
        """Look until `stop`. The first look raises no alarm: what waited for this process has yet to be seen to."""
        if self._show is not None:
            await self.look(alarms=False)
        while self._checks or self._show is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), every.total_seconds())
            if self._stopping.is_set():
                return
            await self.look()

    def stop(self) -> None:
        """Let `run` end after the look it is at."""
        self._stopping.set()

    async def look(self, *, alarms: bool = True) -> None:
        """Ask once; a database that is away is asked again at the next look, and ends no alarm."""
        try:
            backlog, raised = await found(self._store, self._checks if alarms else ())
        except Exception as error:  # noqa: BLE001 - no saga rests on an alarm
            logger.warning("What to raise the alarm about could not be read: %s. Trying again.", error)
            return
        if self._show is not None:
            self._show(backlog)
        if alarms:
            self._take(raised)
            await self._acted(raised)

    async def _acted(self, raised: Sequence[Alarm]) -> None:
        if self._act is None:
            return
        try:
            await self._act(raised)
        except Exception as error:  # noqa: BLE001 - the next look does it
            logger.warning("What should follow from an alarm could not be done: %s. Trying again.", error)

    def _take(self, raised: Sequence[Alarm]) -> None:
        told = self._told
        self._told = {which: told[which] for alarm in raised if (which := (alarm.kind, alarm.about)) in told}
        for alarm in raised:
            which = (alarm.kind, alarm.about)
            if which not in told or alarm.size >= _GROWN * told[which]:
                self._told[which] = alarm.size
                logger.warning("%s", alarm.text, extra={"alarm": {"kind": alarm.kind, **alarm.facts}})
                self._tell(alarm)
        for kind, about in told.keys() - self._told.keys():
            logger.info("No alarm any more: %s, %s", kind, about)
