"""Erasing what ended sagas knew, when somebody demands that their data go.

The twins below are the part of `SagaClient` and `BlockingSagaClient` that is about this. No engine takes part.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from orchestrator.asking import AsksSagas, AsksSagasBlocking
from orchestrator.bulk import BulkOutcome, BulkResult
from orchestrator.errors import ActionRefused, UnknownSaga
from orchestrator.sql.erasing import erase

ELSEWHERE: Final = (
    "Not erased, for it lies elsewhere: business keys and keys of items; reasons that operators gave; messages on the "
    "broker, in the outbox and among dead letters (saga dlq); events that no saga took; archives; logs, traces and "
    "backups; what participants keep, their inboxes included."
)
"""What is told of the data that `erase` does not reach."""
_AT_ONCE: Final = 100


class ErasesSagas(AsksSagas):
    """Erase from asyncio."""

    async def erase(self, ids: Iterable[UUID], *, reason: str, by: str = "") -> AsyncIterator[BulkResult]:
        """Erase what these sagas and their children knew, and tell what came of each.

        State, items, messages, signals, the texts of errors and of the history are replaced. Rows, keys, statuses and
        times stay, and the audit has who asked for it, and why: say no name in the reason. There is no way back.
        Refused are sagas that have not ended, or a child of which has not, and children by themselves.

        Args:
            ids: of whom; a hundred in a transaction.
            reason: why; kept with each saga.
            by: who asks.
        """
        for some in _lots(ids):
            erased = await self._write(lambda c, some=some: erase(c, some, reason, by, schema=self._schema))  # type: ignore[misc] # mypy knows no lambda with a default
            for result in _results(erased):
                yield result


class ErasesSagasBlocking(AsksSagasBlocking):
    """Erase from threads."""

    def erase(self, ids: Iterable[UUID], *, reason: str, by: str = "") -> Iterator[BulkResult]:
        """Erase what these sagas and their children knew; see `ErasesSagas.erase`."""
        for some in _lots(ids):
            yield from _results(self._write(lambda c, some=some: erase(c, some, reason, by, schema=self._schema)))  # type: ignore[misc] # mypy knows no lambda with a default


def _lots(ids: Iterable[UUID]) -> Iterator[Sequence[UUID]]:
    frozen = list(dict.fromkeys(ids))
    return (frozen[first : first + _AT_ONCE] for first in range(0, len(frozen), _AT_ONCE))


def _results(refused: Mapping[UUID, str | None]) -> Iterator[BulkResult]:
    for saga_id, why in refused.items():
        if why is None:
            yield BulkResult(saga_id, BulkOutcome.UNKNOWN, UnknownSaga(saga_id))
        elif why:
            yield BulkResult(saga_id, BulkOutcome.REFUSED, ActionRefused(saga_id, "erase", why))
        else:
            yield BulkResult(saga_id, BulkOutcome.DONE)
