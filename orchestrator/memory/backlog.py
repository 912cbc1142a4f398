"""What waits, told of all sagas at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from uuid import UUID

from orchestrator.backlog import Backlog, BlockedSagas, OldSagas, Outcomes, UnsentCommands, merged
from orchestrator.instance import Pin, SagaInstance, SagaStatus, StepRecord
from orchestrator.memory.rows import Rows
from orchestrator.workers import DEAD_AFTER


class BacklogRows(Rows):
    """Looks at everything."""

    async def backlog(self) -> Backlog:
        """Tell what waits."""
        tables, now = self._tables, await self.now()
        return Backlog(
            merged([_alone(saga) for saga in tables.sagas.values() if saga.status is SagaStatus.BLOCKED]),
            command_overdue_seconds=_seconds_since((at for _, one in self._to_send() if (at := one.send_after)), now),
            outbox_oldest_seconds=_seconds_since((tables.arrived.get(one, now) for one in tables.outgoing), now),
            wake_overdue_seconds=_seconds_since(tables.wakes.values(), now),
            engines=sum(heard_of >= now - DEAD_AFTER for _, heard_of in tables.workers.values()),
        )

    async def unsent_commands(self, *, before: datetime) -> list[UnsentCommands]:
        """Count commands that should have left before this instant, by participant."""
        found: dict[str, list[tuple[datetime, str]]] = {}
        for saga_id, record in self._to_send():
            saga, error = self._tables.sagas[saga_id], self._tables.unsent[saga_id, record.key]
            overdue = record.send_after is not None and record.send_after < before
            in_vain = bool(error) and record.started_at < before
            if (overdue or in_vain) and not saga.status.terminal and saga.paused_at is None:
                found.setdefault(record.participant, []).append((record.started_at, error))
        return [
            UnsentCommands(to, len(some), min(at for at, _ in some), max(error for _, error in some))
            for to, some in sorted(found.items())
        ]

    async def sagas_begun(self, before: Mapping[Pin, datetime]) -> list[OldSagas]:
        """Count sagas that have not ended, of these versions, begun before these instants."""
        limits = {(pin.name, pin.version): instant for pin, instant in before.items()}
        found: dict[tuple[str, int], list[datetime]] = {}
        for saga in self._tables.sagas.values():
            which = saga.pin.name, saga.pin.version
            if which in limits and not saga.status.terminal and saga.started_at < limits[which]:
                found.setdefault(which, []).append(saga.started_at)
        return [OldSagas(*which, len(begun), min(begun)) for which, begun in sorted(found.items())]

    async def unmatched_since(self, since: datetime) -> int:
        """Count messages that were put aside since then."""
        return sum(self._tables.arrived[one] >= since for one in self._tables.unmatched)

    async def outcomes(self, *, since: datetime, at_least: int) -> list[Outcomes]:
        """Count what became of sagas, where so many did not complete."""
        completed, turned_back, blocked = (Counter[tuple[str, int]]() for _ in range(3))
        for saga in self._tables.sagas.values():
            lately = saga.blocked_at if saga.status is SagaStatus.BLOCKED else saga.ended_at
            if saga.parent is None and lately is not None and lately >= since:
                counted = {SagaStatus.BLOCKED: blocked, SagaStatus.COMPLETED: completed}
                counted.get(saga.status, turned_back)[saga.pin.name, saga.pin.version] += 1
        return [
            Outcomes(*which, completed[which], turned_back[which], blocked[which])
            for which in sorted({*turned_back, *blocked})
            if turned_back[which] + blocked[which] >= at_least
        ]

    def _to_send(self) -> list[tuple[UUID, StepRecord]]:
        return [(saga_id, self._tables.sagas[saga_id].steps[key]) for saga_id, key in self._tables.unsent]


def _alone(saga: SagaInstance) -> BlockedSagas:
    reason = saga.blocked_reason.value if saga.blocked_reason else ""
    return BlockedSagas(saga.pin.name, saga.blocked_step, reason, 1, saga.blocked_at or saga.updated_at)


def _seconds_since(instants: Iterable[datetime], now: datetime) -> float:
    oldest = min(instants, default=now)
    return max(0.0, (now - oldest).total_seconds())
