"""Sagas as this process wrote them last, so that the answer to a saga's one open command needs no read.

Whoever changes a saga raises its revision, and what was decided on a saga that is not the stored one is not written.
So a saga at hand may be out of date: then it costs a second look, and never misleads.
"""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, NamedTuple
from uuid import UUID

from orchestrator.copies import copied
from orchestrator.instance import SagaInstance, SagaStatus, StepRecord, StepStatus
from orchestrator.signals import Decision
from orchestrator.store import Clock, SagaStore
from orchestrator.store_records import CommandRef, Locked

_LIVE: Final = frozenset((SagaStatus.RUNNING, SagaStatus.COMPENSATING))
_BYTES_A_ROW: Final = 1000
_KEPT_SECONDS: Final = 60.0
_TRUSTED: Final = timedelta(seconds=0.2)
"""How long the database's instant is taken to go on as our own clock does, and how far behind it may be."""
# Goes on while the machine is suspended, where there is such a clock.
_elapsed: Final = partial(time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Kept(NamedTuple):
    ref: CommandRef
    saga: SagaInstance
    size: int
    since: float


class AtHand:
    """Keeps sagas that await the answer to one command, and nothing else; for a minute, and of many the last.

    Args:
        store: has all of them.
        most_bytes: about so much memory; 0 keeps none.
        clock: the store's, if it is not the database's.
        seconds: that have passed since anything.
    """

    def __init__(
        self,
        store: SagaStore,
        most_bytes: int = 0,
        clock: Clock | None = None,
        *,
        seconds: Callable[[], float] = _elapsed,
    ) -> None:
        self._store, self._most_bytes, self._clock, self.seconds = store, most_bytes, clock, seconds
        self._kept: OrderedDict[UUID, _Kept] = OrderedDict()
        """By the id of the command."""
        self._commands: dict[UUID, UUID] = {}
        """That id, by the saga's."""
        self._bytes = 0
        self._seen: tuple[datetime, float] | None = None

    def saw(self, now: datetime, *, asked: float) -> None:
        """Take the database's instant, which was asked for when so many seconds had passed; unless that is long ago."""
        at = self.seconds()
        if at - asked < _TRUSTED.total_seconds():
            self._seen = now, at

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        """Find attempts as `SagaStore.read_commands` does; those that are at hand are not read."""
        refs, locked = self._found(command_ids)
        missing, asked = [one for one in command_ids if one not in refs], self.seconds()
        read = await self._store.read_commands(missing) if missing else None
        if read is not None:
            self.saw(read[1].now, asked=asked)
            return {**refs, **read[0]}, Locked(read[1].now, {**locked.sagas, **read[1].sagas})
        return (refs, locked) if refs else None

    def keep(self, written: Sequence[Decision]) -> None:
        """Take sagas as they were just written, and forget what was at hand of them before."""
        for decision in written if self._most_bytes else ():
            saga, awaited = decision.instance, _awaited(decision)
            self._drop(self._commands.get(saga.id))
            if awaited is not None and awaited.command_id is not None:
                ref = CommandRef(saga.id, awaited.key, awaited.round, awaited.attempt)
                size = sys.getsizeof(saga.state) + _BYTES_A_ROW * (1 + len(saga.steps))
                self._commands[saga.id] = awaited.command_id
                self._kept[awaited.command_id] = _Kept(ref, as_read(saga), size, self.seconds())
                self._bytes += size
        while self._kept and (self._bytes > self._most_bytes or self._is_old(next(iter(self._kept)))):
            self._drop(next(iter(self._kept)))

    def forget(self, command_ids: Iterable[UUID]) -> bool:
        """Forget sagas that await answers to these, whose rows are others by now; return whether there were some."""
        kept = {one for one in command_ids if one in self._kept}
        for command_id in kept:
            self._drop(command_id)
        return bool(kept)

    def _found(self, command_ids: Iterable[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        now = self._now()
        if now is None:
            return {}, Locked(datetime.min)  # noqa: DTZ901 - of no saga
        # One that was changed later than that was written while somebody's clock was wrong; it is none to go by.
        kept = [self._kept[one] for one in command_ids if one in self._kept]
        found = {one.saga.id: one.saga for one in kept if one.saga.updated_at <= now + _TRUSTED}
        refs = {self._commands[one.ref.saga_id]: one.ref for one in kept if one.ref.saga_id in found}
        # The instant is a little behind, and must not be before what these sagas have seen.
        return refs, Locked(max((now, *(saga.updated_at for saga in found.values()))), found)

    def _drop(self, command_id: UUID | None) -> None:
        if command_id is not None:
            kept = self._kept.pop(command_id)
            del self._commands[kept.ref.saga_id]
            self._bytes -= kept.size

    def _is_old(self, command_id: UUID) -> bool:
        return self.seconds() - self._kept[command_id].since > _KEPT_SECONDS

    def _now(self) -> datetime | None:
        if self._clock is not None:
            return self._clock.now()
        if self._seen is None:
            return None
        seen, at = self._seen
        passed = timedelta(seconds=self.seconds() - at)
        return seen + passed if passed < _TRUSTED else None


def _awaited(decision: Decision) -> StepRecord | None:
    """The one thing a saga awaits, if that is the answer to a command that was sent by what was just written.

    Of what was written before, a mark may have come since. All there is of the saga must be in memory.
    """
    saga, awaited = decision.instance, None
    if saga.status not in _LIVE or saga.paused_at or saga.items:
        return None
    for key, record in saga.steps.items():
        if key.branch or (record.status.open and awaited is not None):  # of a `ForEach` not all items are loaded
            return None
        awaited = record if record.status.open else awaited
    if awaited is None or awaited.status is not StepStatus.OUTSTANDING or not awaited.send_attempts:
        return None
    return awaited if awaited.key in decision.added or awaited.key in decision.changed else None


def as_read(saga: SagaInstance) -> SagaInstance:
    """A saga that was written, as the next one reads it: at its new revision, records without body and reply."""
    steps = {
        key: record if record.body is None and record.reply is None else copied(record, body=None, reply=None)
        for key, record in saga.steps.items()
    }
    return copied(saga, revision=saga.revision + 1, steps=steps)
