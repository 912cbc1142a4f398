"""Alarms: what is not wrong enough to block a saga, and that somebody should look at all the same.

A check is a question to the store, about all sagas at once; what it finds is told once by each process, until it is
found no more. An alarm is a line of the log, a metric, and whatever the application does about it (`on_alarm`).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias

from orchestrator.store import HeldLock, SagaStore, StoreTransaction
from orchestrator.words import duration

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something that somebody should look at."""

    kind: str
    """Which check found it; a word of few, good for a label."""
    about: str
    """What makes it the same alarm when it is found again."""
    text: str
    """What is so, with the ids, and what to do."""
    facts: Mapping[str, str | int | float]
    """The same for machines; with the kind, what the log's line has as `alarm`."""


Check: TypeAlias = Callable[[StoreTransaction], Awaitable[Sequence[Alarm]]]


class Watchdog:
    """Asks all checks at each look, and tells what is new.

    Args:
        store: where to ask.
        checks: what to ask.
        tell: called with each new alarm, after it was logged; must not raise.
    """

    def __init__(self, store: SagaStore, checks: Sequence[Check], tell: Callable[[Alarm], None]) -> None:
        self._store, self._checks, self._tell = store, checks, tell
        self._raised: set[tuple[str, str]] = set()

    async def look(self) -> None:
        """Ask once; a database that is away is asked again at the next look."""
        if not self._checks:
            return
        try:
            async with self._store.transaction() as tx:
                alarms = [alarm for check in self._checks for alarm in await check(tx)]
        except Exception as error:  # noqa: BLE001 - no saga rests on an alarm
            logger.warning("What to raise the alarm about could not be read: %s. Trying again.", error)
            return
        for alarm in alarms:
            if (alarm.kind, alarm.about) not in self._raised:
                logger.warning("%s", alarm.text, extra={"alarm": {"kind": alarm.kind, **alarm.facts}})
                self._tell(alarm)
        self._raised = {(alarm.kind, alarm.about) for alarm in alarms}


def locks_held_too_long(limit: timedelta) -> Check:
    """Resources that a saga has held for longer than this, whether or not others wait for them."""

    async def check(tx: StoreTransaction) -> list[Alarm]:
        now = await tx.now()
        held = await tx.held_locks(before=now - limit)
        return [_lock_held(lock, now - lock.since) for lock in held]

    return check


def _lock_held(lock: HeldLock, for_so_long: timedelta) -> Alarm:
    text = (
        f"{lock.resource} is held by step {lock.step} of saga {lock.saga_id} for {duration(for_so_long)}, "
        f"and {_waiting(lock.waiters)} for it. Look what that saga waits for: saga why {lock.saga_id}"
    )
    facts: dict[str, str | int | float] = {
        "resource": lock.resource,
        "holder": str(lock.saga_id),
        "step": lock.step,
        "held_seconds": for_so_long.total_seconds(),
        "waiters": lock.waiters,
    }
    return Alarm("lock-held", str(lock.id), text, facts)


def _waiting(sagas: int) -> str:
    return {0: "nobody waits", 1: "1 saga waits"}.get(sagas, f"{sagas} sagas wait")
