"""Deletes what has ended and is no longer kept: a few trees in a transaction, with a pause after each.

Any number of processes may do so at once, and each may be killed anywhere: what is not committed is found again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Protocol

from messaging import failpoints
from orchestrator.instance import SagaStatus
from orchestrator.retention import BATCH, PER_SECOND, EndedTree, Place, Rest, Retention
from orchestrator.store import SagaStore, StoreTransaction

logger = logging.getLogger(__name__)

_AFTER_TROUBLE: Final = timedelta(seconds=5)


class Archive(Protocol):
    """Where sagas are kept that are about to be deleted."""

    async def keep(self, tx: StoreTransaction, trees: Sequence[EndedTree]) -> Sequence[EndedTree]:
        """Keep these for good; return those that are kept, which may be deleted."""
        ...


@dataclass(frozen=True, slots=True)
class Purged:
    """What one transaction deleted; several add up."""

    sagas: Counter[SagaStatus] = field(default_factory=Counter[SagaStatus])
    """Children under the status that the first saga of their tree ended in."""
    rest: Counter[Rest] = field(default_factory=Counter[Rest])
    left: int = 0
    """Trees passed over: a child of theirs goes on, or something is still to be told to one of them."""
    not_archived: int = 0
    """Trees that could not be archived, and so stay."""

    def __add__(self, other: Purged) -> Purged:
        return Purged(
            self.sagas + other.sagas,
            self.rest + other.rest,
            self.left + other.left,
            self.not_archived + other.not_archived,
        )


class Purger:
    """Deletes by one retention.

    Args:
        store: open.
        retention: what is kept for how long.
        archive: keeps sagas before they are deleted; None deletes them alone.
        batch: sagas, or other rows, in one transaction; a tree is never divided.
        per_second: so many are deleted in a second at most. However fast the database, half of the time is pause.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        store: SagaStore,
        retention: Retention,
        *,
        archive: Archive | None = None,
        batch: int = BATCH,
        per_second: float = PER_SECOND,
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._store, self._retention, self._archive = store, retention, archive
        self._batch, self._per_second, self._pause = batch, per_second, pause

    async def run(self) -> AsyncGenerator[Purged]:
        """Go through all that may go now, and tell what each transaction deleted. Whoever stops listening stops it."""
        async with self._store.transaction() as tx:
            now = await tx.now()
        for status, kept in self._retention.sagas.items():
            async for purged in self._sagas(status, now - kept):
                yield purged
        for rest, kept in self._retention.rest.items():
            async for purged in self._rest(rest, now - kept):
                yield purged

    async def _sagas(self, status: SagaStatus, before: datetime) -> AsyncGenerator[Purged]:
        place: Place | None = None
        while True:
            began = time.monotonic()
            async with self._store.transaction() as tx:
                found = await tx.lock_ended(status, before=before, after=place, limit=self._batch)
                trees = found.trees if self._archive is None else await self._archive.keep(tx, found.trees)
                failpoints.reached("purge.archived")
                await tx.purge(trees)
                failpoints.reached("purge.deleted")
            failpoints.reached("purge.committed")
            took = time.monotonic() - began
            count = sum(len(tree.sagas) for tree in trees)
            yield Purged(Counter({status: count}), left=found.left, not_archived=len(found.trees) - len(trees))
            if found.further is None:
                return
            place = found.further
            await self._rested(count, took)

    async def _rest(self, rest: Rest, before: datetime) -> AsyncGenerator[Purged]:
        while True:
            began = time.monotonic()
            async with self._store.transaction() as tx:
                count = await tx.purge_rest(rest, before=before, limit=self._batch)
            took = time.monotonic() - began
            yield Purged(rest=Counter({rest: count}))
            if count < self._batch:
                return
            await self._rested(count, took)

    async def _rested(self, count: int, took: float) -> None:
        await self._pause(max(count / self._per_second - took, took))


class Housekeeping:
    """Purges now and then for as long as a service runs; of several processes at one database one at a time.

    Args:
        purger: does it.
        store: the purger's.
        every: how often it is begun, and for how long one process goes on before another may.
    """

    def __init__(self, purger: Purger, store: SagaStore, *, every: timedelta) -> None:
        self._purger, self._store, self._every = purger, store, every

    async def run(self) -> None:
        """Work until cancelled; whatever fails is done again later."""
        while True:
            began = time.monotonic()
            try:
                if await self._claimed():
                    _tell(await self._turn(until=began + self._every.total_seconds()))
            except Exception as error:  # noqa: BLE001 - nothing rests on one turn
                logger.warning("What has ended could not be purged: %s. Trying again.", error)
                await asyncio.sleep(_AFTER_TROUBLE.total_seconds())
            await asyncio.sleep(max(0.0, began + self._every.total_seconds() - time.monotonic()))

    async def _claimed(self) -> bool:
        async with self._store.transaction() as tx:
            return await tx.claim_purge(every=self._every)

    async def _turn(self, *, until: float) -> Purged:
        all_of_it = Purged()
        async with aclosing(self._purger.run()) as turn:
            async for purged in turn:
                all_of_it += purged
                if time.monotonic() >= until:
                    break
        return all_of_it


def _tell(purged: Purged) -> None:
    counts: Sequence[tuple[str, int]] = (*purged.sagas.items(), *purged.rest.items())
    told = ", ".join(f"{what}: {count:,}" for what, count in counts if count)
    if told:
        logger.info("Purged %s", told)
    if purged.not_archived:
        logger.warning(
            "%d sagas were not archived and stay: this process does not have their definition, which says what is "
            "secret in them. Purge them with: saga purge --archive DIR --app MODULE:ATTRIBUTE, with code that has it",
            purged.not_archived,
        )
