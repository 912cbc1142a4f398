"""Signals that were kept for sagas, told to them in order: what becomes of each, and what is to be written about it."""

from __future__ import annotations

from uuid import UUID

from orchestrator.batch import Batch
from orchestrator.instance import SagaInstance
from orchestrator.signal_codec import UPGRADE, signal_from_row
from orchestrator.signals import (
    ActionRequested,
    Decision,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.store_records import AuditEntry, StoredSignal, UnmatchedMessage


class Telling:
    """Kept signals on their way to the sagas of a batch, and what is to be written about each."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._parked: dict[UUID, list[StoredSignal]] = {}
        self.taken: list[UUID] = []
        self.failed: dict[UUID, str] = {}
        self.revived: list[UUID] = []
        self.unmatched: list[UnmatchedMessage] = []
        self.audit: list[AuditEntry] = []

    def tell(self, signal: StoredSignal) -> None:
        """Tell one saga one signal; what is parked is told, in order, once a resume is."""
        if signal.kind.startswith(UPGRADE):
            return  # `VersionKeeper` takes it, in a process that has the version
        try:
            incoming = signal_from_row(signal.kind, signal.body)
        except ValueError as error:
            self.failed[signal.id] = str(error)
            return
        before = self._batch.saga(signal.saga_id)
        told = self._batch.tell(signal.saga_id, incoming)
        if told.decision is not None and told.decision.parked:
            self._parked.setdefault(signal.saga_id, []).append(signal)
        elif isinstance(incoming, ActionRequested):
            self.taken.append(signal.id)
            if before is not None and told.decision is not None:
                self._acted(signal, incoming, before, told.decision, told.error)
        elif told.error:
            self.failed[signal.id] = told.error
        else:
            self.taken.append(signal.id)
            self._keep_unusable(signal, told.decision)

    def _acted(
        self, signal: StoredSignal, asked: ActionRequested, before: SagaInstance, decision: Decision, error: str
    ) -> None:
        self.audit.append(_audit_entry(signal, asked, before, decision.instance, error or decision.refused))
        if not decision.accepted:
            return
        if isinstance(asked, RetryRequested | SkipRequested | ResolveRequested):
            self.revived.append(signal.saga_id)
        if isinstance(asked, ResumeRequested):
            for parked in self._parked.pop(signal.saga_id, ()):
                self.tell(parked)

    def _keep_unusable(self, signal: StoredSignal, decision: Decision | None) -> None:
        for note in decision.notes if decision else ():
            if note.unusable:
                message = UnmatchedMessage("", note.text, signal.body.encode(), "{}", signal.saga_id)
                self.unmatched.append(message)


def _audit_entry(
    signal: StoredSignal,
    asked: ActionRequested,
    before: SagaInstance,
    after: SagaInstance,
    refused: str,
) -> AuditEntry:
    return AuditEntry(
        signal.saga_id, signal.kind, asked.by, asked.reason, before.status.value, after.status.value, refused, signal.id
    )
