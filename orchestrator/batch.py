"""Many signals, one transaction: the sagas of a batch with what was decided for each so far."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from uuid import UUID

from messaging.logged import about_now, trace_id_of
from messaging.printable import traceback_text
from messaging.transport import Outgoing
from orchestrator.copies import copied
from orchestrator.errors import HookRaised
from orchestrator.instance import SagaInstance, StepKey, StepRecord
from orchestrator.outgoing import event_message
from orchestrator.registry import SagaRegistry
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import CodeFailed, Decision, Incoming
from orchestrator.store import StoreTransaction
from orchestrator.store_records import Locked, NewSignal, SagaCommand
from orchestrator.transitions import decide
from orchestrator.versions import due
from orchestrator.watching import Change

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Told:
    """What became of one signal."""

    decision: Decision | None
    """None: this process does not have the saga's definition, or does not know the saga."""
    error: str = ""
    """What a hook raised, with its traceback; the saga is blocked then."""
    step: str = ""
    """Whose hook it was."""


class Batch:
    """The locked sagas of one transaction. Tell it signals, then save it."""

    def __init__(self, registry: SagaRegistry, locked: Locked, *, grace: timedelta) -> None:
        self._registry, self._locked, self._grace = registry, locked, grace
        self._decided: dict[UUID, Decision] = {}
        self._signals: list[NewSignal] = []
        self._raised: dict[UUID, HookRaised] = {}
        self.now = locked.now
        self.marked: Set[UUID] = frozenset()
        """Attempts that were marked as sent before anything was decided."""
        self.written: Sequence[Decision] = ()
        """What `sending` gave, which is what is written."""

    def saga(self, saga_id: UUID) -> SagaInstance | None:
        """A saga as decided so far."""
        decided = self._decided.get(saga_id)
        return decided.instance if decided else self._locked.sagas.get(saga_id)

    def decides(self, saga_id: UUID) -> bool:
        """Whether what a saga is told is decided now: it is known here, and not paused."""
        instance = self.saga(saga_id)
        return instance is not None and not instance.paused_at and self._registry.find(instance.pin) is not None

    def tell(self, saga_id: UUID, incoming: Incoming) -> Told:
        """Decide one signal. One that raises blocks its saga and is kept aside for a retry."""
        instance = self.saga(saga_id)
        saga = self._registry.find(instance.pin) if instance else None
        if instance is None or saga is None:
            return Told(None)
        about = about_now.set(partial(_ids_of, instance))
        try:
            decision = decide(saga, instance, incoming, now=self.now)
            error = step = ""
        except HookRaised as raised:
            error, step = traceback_text(raised), raised.step
            self._raised[saga_id] = raised
            decision = decide(saga, instance, CodeFailed(raised.step, str(raised)), now=self.now)
        finally:
            about_now.reset(about)
        self.keep(saga_id, decision)
        return Told(decision, error, step)

    def keep(self, saga_id: UUID, decision: Decision) -> None:
        """Take a decision that was made elsewhere, on the saga as decided so far."""
        earlier = self._decided.get(saga_id)
        if earlier is not None:
            self._decided[saga_id] = earlier.then(decision)
        elif decision.accepted or decision.notes or decision.tells or decision.changed:
            self._decided[saga_id] = decision

    def park(self, saga_id: UUID, incoming: Incoming, *, error: str = "") -> None:
        """Keep a signal for later: for a process that knows the definition, for a resume, or for a retry."""
        row = signal_to_row(incoming)
        if row is not None:
            self._signals.append(NewSignal(saga_id, *row, error=error))
        instance = self.saga(saga_id)
        if instance is not None and self._registry.find(instance.pin) is None:
            waiting = due(instance, self.now)
            if waiting is not None:
                self.keep(saga_id, waiting)

    def leave(self, saga_ids: Iterable[UUID]) -> None:
        """Forget what was decided for these sagas."""
        for saga_id in saga_ids:
            self._decided.pop(saga_id, None)
            self._raised.pop(saga_id, None)

    def plain(self, saga_id: UUID) -> bool:
        """Whether what was decided for a saga so far can be written by `SagaStore.write`."""
        decided = self._decided.get(saga_id)
        return decided is None or decided.plain

    def sending(self) -> tuple[list[Decision], list[SagaCommand]]:
        """All that was decided, and the commands to publish once it is committed."""
        for saga_id, raised in self._raised.items():
            ids = {**_ids_of(self._locked.sagas[saga_id]), "saga_step": raised.step}
            logger.error("Saga %s is blocked until its code is mended", saga_id, exc_info=raised, extra=ids)
        commands: list[SagaCommand] = []
        self.written = decisions = [self._with_sends(decision, commands) for decision in self._decided.values()]
        return decisions, commands

    async def save(self, tx: StoreTransaction) -> list[SagaCommand]:
        """Write everything; return the commands to publish once the transaction has committed."""
        decisions, commands = self.sending()
        await tx.save(decisions)
        for decision in decisions:
            for child in decision.children:
                await tx.start(child)
            if decision.locks:
                await tx.change_locks(decision.instance, decision.locks)
        await tx.add_signals([*self._signals, *_told_others(decisions)])
        await tx.add_outgoing(list(_events_of(decisions)))
        return commands

    @property
    def changes(self) -> list[Change]:
        """What it does to each saga, once this is committed."""
        return [Change(self._locked.sagas[saga_id], decision) for saga_id, decision in self._decided.items()]

    @property
    def sent(self) -> Set[UUID]:
        """Attempts of which its rows say that they were sent: those that were answered, or marked."""
        written = (d.steps[key] for d in self._decided.values() for key in d.changed)
        return self.marked | {
            record.command_id for record in written if record.sent_at is not None and record.command_id
        }

    @property
    def publishes_events(self) -> bool:
        """Whether the outbox has something new once this is committed."""
        return any(decision.events for decision in self._decided.values())

    @property
    def changes_locks(self) -> bool:
        """Whether somebody may be granted something once this is committed."""
        return any(decision.locks for decision in self._decided.values())

    @property
    def local_due(self) -> list[tuple[UUID, StepKey]]:
        """Local steps that are to be run once this is committed."""
        return [(saga_id, key) for saga_id, decision in self._decided.items() for key in decision.local]

    def _with_sends(self, decision: Decision, commands: list[SagaCommand]) -> Decision:
        """Claim what this process publishes itself: due at once, with its body in hand, and not paused."""
        if decision.instance.paused_at:
            return decision
        due = [k for k in (*decision.added, *decision.changed) if self._sends_now(decision.steps[k])]
        if not due:
            return decision
        steps: dict[StepKey, StepRecord] = dict(decision.steps)
        saga = decision.instance
        for key in due:
            record = copied(steps[key], send_after=self.now + self._grace, send_attempts=1)
            steps[key] = record
            commands.append(SagaCommand(saga.id, saga.pin.name, record, saga.trace, send_attempts=1))
        return copied(decision, instance=copied(saga, steps=steps))

    def _sends_now(self, record: StepRecord) -> bool:
        due = record.send_after is not None and record.send_after <= self.now
        return due and record.body is not None


def _ids_of(saga: SagaInstance) -> dict[str, str]:
    """What a line of the log about it carries."""
    return {"saga_id": str(saga.id), "trace_id": trace_id_of(saga.trace)}


def _told_others(decisions: Iterable[Decision]) -> Iterable[NewSignal]:
    """What parents and children are to be told."""
    for decision in decisions:
        for tell in decision.tells:
            row = signal_to_row(tell.incoming)
            if row is not None:
                yield NewSignal(tell.saga_id, *row)


def _events_of(decisions: Iterable[Decision]) -> Iterable[Outgoing]:
    for decision in decisions:
        for event in decision.events:
            yield event_message(event, decision.instance)
