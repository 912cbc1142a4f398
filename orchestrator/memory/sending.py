"""Commands that have yet to leave: the rows of steps are their outbox."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import UUID

from orchestrator.instance import StepRecord, StepStatus
from orchestrator.memory.rows import Rows
from orchestrator.store_records import SagaCommand


class SendingRows(Rows):
    """What is due to be sent, and what became of it."""

    async def mark_sent(self, command_ids: Sequence[UUID]) -> None:
        """Note that these attempts were confirmed by the broker."""
        now = await self.now()
        for saga_id, record in self._unsent(command_ids):
            self._change_record(saga_id, replace(record, send_after=None, sent_at=now))

    async def claim_unsent(self, *, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Take commands of live sagas whose `send_after` has come, earliest first."""
        now = await self.now()
        due = [
            (record.send_after, saga.id, record)
            for saga in map(self._tables.sagas.__getitem__, {saga_id for saga_id, _ in self._tables.unsent})
            if not saga.status.terminal and saga.paused_at is None
            for record in saga.steps.values()
            if record.send_after is not None and record.send_after <= now
        ]
        due.sort(key=lambda one: (one[0], one[2].seq))
        for saga_id in {saga_id for _, saga_id, _ in due[: max(limit, 0)]}:
            saga = self._tables.sagas[saga_id]
            self._put(self._tables.sagas, saga_id, replace(saga, revision=saga.revision + 1))
        return [self._claim(saga_id, record, now + grace) for _, saga_id, record in due[: max(limit, 0)]]

    async def put_off_sends(self, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Note that attempts could not be sent: when to try again, and why."""
        for saga_id, record in self._unsent(list(problems)):
            assert record.command_id is not None
            until, error = problems[record.command_id]
            self._change_record(saga_id, replace(record, send_after=until))
            self._put(self._tables.unsent, (saga_id, record.key), error)

    async def make_unanswered_due(self, *, timeout: timedelta) -> int:
        """Make every outstanding command of a live saga due again, deadlines restarted."""
        now = await self.now()
        outstanding = [
            (saga.id, record)
            for saga in self._tables.sagas.values()
            if not saga.status.terminal
            for record in saga.steps.values()
            if record.status is StepStatus.OUTSTANDING
        ]
        for saga_id, record in outstanding:
            deadline = max(record.deadline or now, now + timeout)
            self._change_record(saga_id, replace(record, send_after=now, deadline=deadline))
        return len(outstanding)

    def _claim(self, saga_id: UUID, record: StepRecord, until: datetime) -> SagaCommand:
        saga = self._tables.sagas[saga_id]
        claimed = replace(record, send_after=until, send_attempts=record.send_attempts + 1)
        self._change_record(saga_id, claimed)
        body = self._tables.bodies.get((saga_id, record.key))
        return SagaCommand(saga_id, saga.pin.name, replace(claimed, body=body), saga.trace, claimed.send_attempts)
