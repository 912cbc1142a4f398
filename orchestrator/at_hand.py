"""Sagas as this process wrote them last, so that the answer to a saga's one open command needs no read.

Whoever changes a saga raises its revision, and what was decided on another revision than the stored one is not
written. So a saga at hand may be out of date: then it costs a second look, and never misleads.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from orchestrator.copies import copied
from orchestrator.instance import SagaInstance, SagaStatus, StepRecord, StepStatus
from orchestrator.signals import Decision
from orchestrator.store import Clock, SagaStore
from orchestrator.store_records import CommandRef, Locked

_TRUSTED_SECONDS: Final = 0.2
"""How long the database's instant is taken to have gone on as our own clock did."""


class AtHand:
    """Keeps sagas that await the answer to one command, and nothing else; of many, those written last.

    Args:
        store: has all of them.
        most: so many sagas; 0 keeps none.
        clock: the store's, if it is not the database's.
        seconds: that have passed, for the time since the database's instant was read.
    """

    def __init__(
        self,
        store: SagaStore,
        most: int = 0,
        clock: Clock | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._most, self._clock, self._seconds = store, most, clock, seconds
        self._sagas: OrderedDict[UUID, SagaInstance] = OrderedDict()
        """By the id of the command."""
        self._commands: dict[UUID, UUID] = {}
        """Of each saga."""
        self._seen: tuple[datetime, float] | None = None

    def saw(self, now: datetime) -> None:
        """Take the database's instant, which was read just now."""
        self._seen = now, self._seconds()

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        """Find attempts as `SagaStore.read_commands` does; those that are at hand are not read."""
        refs, locked = self._found(command_ids)
        missing = [one for one in command_ids if one not in refs]
        read = await self._store.read_commands(missing) if missing else None
        if read is not None:
            self.saw(read[1].now)
            return {**refs, **read[0]}, Locked(read[1].now, {**locked.sagas, **read[1].sagas})
        return (refs, locked) if refs else None

    def _found(self, command_ids: Iterable[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked]:
        now = self._now()
        sagas = {one: self._sagas[one] for one in command_ids if one in self._sagas} if now is not None else {}
        if now is None or not sagas:
            return {}, Locked(datetime.min)  # noqa: DTZ901 - of no saga
        # Of two instants, one read and one guessed, the guessed one may be a little behind.
        now = max(now, *(saga.updated_at for saga in sagas.values()))
        return {one: _ref(saga) for one, saga in sagas.items()}, Locked(now, {saga.id: saga for saga in sagas.values()})

    def keep(self, written: Sequence[Decision]) -> None:
        """Take sagas as they were just written, and forget what was at hand of them before."""
        if not self._most:
            return
        for decision in written:
            saga = decision.instance
            self._drop(saga.id)
            awaited = _awaited(saga)
            if awaited is not None and awaited.command_id is not None:
                self._commands[saga.id] = awaited.command_id
                self._sagas[awaited.command_id] = _as_read(saga)
        while len(self._sagas) > self._most:
            _, oldest = self._sagas.popitem(last=False)
            del self._commands[oldest.id]

    def forget(self, command_ids: Iterable[UUID]) -> bool:
        """Forget sagas that await answers to these, whose rows are others by now; return whether there were some."""
        sagas = [self._sagas[one].id for one in command_ids if one in self._sagas]
        for saga_id in sagas:
            self._drop(saga_id)
        return bool(sagas)

    def _drop(self, saga_id: UUID) -> None:
        command_id = self._commands.pop(saga_id, None)
        if command_id is not None:
            del self._sagas[command_id]

    def _now(self) -> datetime | None:
        if self._clock is not None:
            return self._clock.now()
        if self._seen is None:
            return None
        seen, at = self._seen
        passed = self._seconds() - at
        return seen + timedelta(seconds=passed) if passed < _TRUSTED_SECONDS else None


def _awaited(saga: SagaInstance) -> StepRecord | None:
    """The one thing a saga awaits, if that is the answer to a command, and all there is of the saga is in memory."""
    if saga.status not in (SagaStatus.RUNNING, SagaStatus.COMPENSATING) or saga.paused_at or saga.items:
        return None
    if any(key.branch for key in saga.steps):  # of a `ForEach` not all items are loaded
        return None
    awaited = [record for record in saga.steps.values() if record.status.open]
    return awaited[0] if len(awaited) == 1 and awaited[0].status is StepStatus.OUTSTANDING else None


def _as_read(saga: SagaInstance) -> SagaInstance:
    """A saga as the next one reads it: at its new revision, records without what is written once."""
    steps = {
        key: copied(record, body=None, reply=None) if record.body is not None or record.reply is not None else record
        for key, record in saga.steps.items()
    }
    return copied(saga, revision=saga.revision + 1, steps=steps)


def _ref(saga: SagaInstance) -> CommandRef:
    awaited = _awaited(saga)
    assert awaited is not None
    return CommandRef(saga.id, awaited.key, awaited.round, awaited.attempt)
