"""Holding a definition: its sagas that have not begun are not taken on until it is released.

An engine that finds such a saga due puts it off, under the saga's row, so that no later look meets it; a release makes
it due again. What has begun goes on, and so does what it starts: a child is part of a saga that has begun.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final

from orchestrator.draft import LOOK_AGAIN
from orchestrator.holds import Hold, hold_of
from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.store import StoreTransaction
from orchestrator.store_records import Locked

READ_EVERY: Final = timedelta(seconds=1)
"""How old what an engine knows of holds may be when it takes sagas on."""


class Holds:
    """What one engine knows of them: read in the transaction that takes sagas on, once a second at most."""

    def __init__(self) -> None:
        self._holds: Sequence[Hold] = ()
        self._read_at: datetime | None = None

    async def passed(self, tx: StoreTransaction, locked: Locked) -> Locked:
        """Put off those that are held, and return the others.

        Whether they are is read anew before any is: nobody would wake what is put off after the release.
        """
        new = [saga for saga in locked.sagas.values() if _may_be_held(saga, locked.now)]
        if not new or (self._fresh(locked.now) and not self._held(new)):
            return locked
        self._holds, self._read_at = await tx.holds(), locked.now
        held = self._held(new)
        await tx.put_off({saga.id: _until(saga, locked.now) for saga in held})
        gone = {saga.id for saga in held}
        return Locked(locked.now, {one: saga for one, saga in locked.sagas.items() if one not in gone})

    def _fresh(self, now: datetime) -> bool:
        return self._read_at is not None and timedelta(0) <= now - self._read_at < READ_EVERY

    def _held(self, new: Iterable[SagaInstance]) -> list[SagaInstance]:
        return [saga for saga in new if hold_of(self._holds, saga.pin) is not None]


def _may_be_held(saga: SagaInstance, now: datetime) -> bool:
    """It would begin now. What is past its deadline would not: it is to end, and no hold keeps it from that."""
    begins = saga.seq == 0 and saga.status is SagaStatus.RUNNING and saga.paused_at is None and saga.parent is None
    return begins and (saga.deadline is None or saga.deadline > now)


def _until(saga: SagaInstance, now: datetime) -> datetime:
    return min(now + LOOK_AGAIN, saga.deadline or now + LOOK_AGAIN)
