"""What is held, and the sagas this keeps from beginning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from orchestrator.holds import Hold
from orchestrator.instance import SagaInstance
from orchestrator.memory.rows import Rows


class HoldRows(Rows):
    """Definitions that are held."""

    async def holds(self) -> list[Hold]:
        """Return what is held now, the longest held first."""
        return [hold for _, (hold, released_at) in sorted(self._tables.holds.items()) if released_at is None]

    async def hold(self, saga: str, version: int | None, *, reason: str, by: str) -> Hold | None:
        """Hold a version, or all of them; None if just that is held."""
        if any((one.saga, one.version) == (saga, version) for one in await self.holds()):
            return None
        hold = Hold(self._new_id(), saga, version, await self.now(), by, reason)
        self._put(self._tables.holds, hold.id, (hold, None))
        return hold

    async def release(self, saga: str, version: int | None, *, reason: str, by: str) -> list[Hold]:
        """End the holds of a version, or all holds of a name."""
        meant = [one for one in await self.holds() if one.saga == saga and version in (None, one.version)]
        for hold in meant:
            self._put(self._tables.holds, hold.id, (hold, await self.now()))
        return meant

    async def released_since(self, saga: str, version: int, since: datetime) -> bool:
        """Whether a hold that concerned this version was ended since then."""
        ended = [(hold, at) for hold, at in self._tables.holds.values() if at is not None and at >= since]
        return any(hold.concerns(saga, version) for hold, _ in ended)

    async def wake_new(
        self, saga: str, version: int | None, *, after: UUID | None = None, limit: int = 1000
    ) -> UUID | None:
        """Make those due that have not begun."""
        waiting = sorted(
            one.id
            for one in self._tables.sagas.values()
            if one.pin.name == saga and version in (None, one.pin.version) and _waits(one)
        )
        some = [one for one in waiting if after is None or one > after][:limit]
        now = await self.now()
        for saga_id in some:
            self._write(replace(self._tables.sagas[saga_id], wake_at=now))
        return some[-1] if len(some) == limit else None

    async def put_off(self, until: Mapping[UUID, datetime]) -> None:
        """Have these sagas looked at then."""
        for saga_id, instant in until.items():
            self._write(replace(self._tables.sagas[saga_id], wake_at=instant))


def _waits(saga: SagaInstance) -> bool:
    return saga.seq == 0 and saga.wake_at is not None and saga.parent is None
