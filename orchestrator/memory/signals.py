"""What sagas have yet to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from orchestrator.memory.rows import Rows
from orchestrator.memory.tables import KeptSignal
from orchestrator.store_records import NewSignal, StoredSignal


class SignalRows(Rows):
    """Kept signals, in order of arrival."""

    async def add_signals(self, signals: Sequence[NewSignal]) -> None:
        """Keep signals for sagas, in order."""
        now = await self.now()
        for new in signals:
            stored = StoredSignal(self._new_id(), new.saga_id, new.kind, new.body)
            self._put(self._tables.signals, stored.id, KeptSignal(stored, now, new.error))

    async def pending_signals(self, saga_ids: Sequence[UUID]) -> list[StoredSignal]:
        """Signals not taken and without error of these sagas, in order of id."""
        wanted = set(saga_ids)
        return [
            kept.signal
            for _, kept in sorted(self._tables.signals.items())
            if kept.pending and kept.signal.saga_id in wanted
        ]

    async def take_signals(self, signal_ids: Sequence[UUID]) -> None:
        """Mark as taken."""
        for kept in self._signals(signal_ids):
            self._put(self._tables.signals, kept.signal.id, replace(kept, taken=True))

    async def fail_signals(self, errors: Mapping[UUID, str]) -> None:
        """Keep signals aside with what they made the definition raise."""
        for kept in self._signals(list(errors)):
            self._put(self._tables.signals, kept.signal.id, replace(kept, error=errors[kept.signal.id]))

    async def revive_signals(self, saga_ids: Sequence[UUID]) -> None:
        """Clear the error of signals kept aside, so that they are pending again."""
        wanted = set(saga_ids)
        for kept in list(self._tables.signals.values()):
            if kept.signal.saga_id in wanted and kept.error and not kept.taken:
                self._put(self._tables.signals, kept.signal.id, replace(kept, error=""))

    def _signals(self, signal_ids: Sequence[UUID]) -> list[KeptSignal]:
        signals = self._tables.signals
        return [signals[signal_id] for signal_id in signal_ids if signal_id in signals]
