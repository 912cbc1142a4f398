"""One action of an operator for many sagas: a frozen list of ids, limited in rate, one result for each id.

`Bulk` says whom to ask when, and what came of it; it knows no database and no clock. Around it: `SagaClient.bulk`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from itertools import islice
from typing import Final, Literal, TypeAlias
from uuid import UUID

from orchestrator.errors import ActionRefused, SagaError, UnknownSaga
from orchestrator.signal_codec import ACTIONS, action_word
from orchestrator.signals import ActionRequested, Asked

ActionWord: TypeAlias = Literal["cancel", "retry", "pause", "resume", "skip", "resolve", "compensate", "abandon"]

PER_SECOND: Final = 100.0
"""How many sagas are asked in a second, unless it is said otherwise."""
MAX_OUT: Final = 500
"""So many may have been asked and not have answered."""
FIRST_LOOK: Final = 0.01
SLOWEST_LOOK: Final = 0.25


class BulkOutcome(StrEnum):
    """What came of asking one saga."""

    DONE = "done"
    REFUSED = "refused"
    UNKNOWN = "unknown"
    """No saga has this id."""
    NOT_TAKEN = "not-taken"
    """No engine took it in time, as when none knows its version; it is kept, and will be taken."""
    NOT_ASKED = "not-asked"
    """No engine took anything for a while, so this one was left alone."""


class NotTaken(SagaError, TimeoutError):
    """No engine took what was asked of a saga in time."""

    def __init__(self, saga_id: UUID, action: str, within: timedelta) -> None:
        self.saga_id, self.action, self.within = saga_id, action, within
        super().__init__(
            f"no engine took the {action} of saga {saga_id} within {within.total_seconds():g} s. It is kept "
            "and will be taken by the next engine that knows the saga; is one running? See: saga doctor"
        )


class NotAsked(SagaError):
    """A saga was left alone, since no engine took what had been asked of others."""

    def __init__(self, saga_id: UUID, action: str) -> None:
        self.saga_id, self.action = saga_id, action
        super().__init__(
            f"{action} was not asked of saga {saga_id}, since no engine took it for those before. Ask again"
        )


@dataclass(frozen=True, slots=True)
class BulkResult:
    """What came of asking one saga; `error` says why it was not done, as the client raises it for a single saga."""

    saga_id: UUID
    outcome: BulkOutcome
    error: SagaError | None = None


def action(word: ActionWord, *, reason: str, step: str = "", by: str = "") -> ActionRequested:
    """What to ask for, by its word.

    Raises:
        ValueError: a step is named, and the action is one on the saga as a whole.
    """
    kind = ACTIONS[word]
    if "step" in {field.name for field in fields(kind)}:
        return kind(reason=reason, step=step, by=by)  # type: ignore[call-arg]
    if step:
        raise ValueError(f"{word} concerns the saga as a whole, and no step such as {step}")
    return kind(reason=reason, by=by)


class Bulk:
    """Who has yet to be asked, who has been, and who has answered.

    Instants are seconds of any one clock that does not go back. When somebody's time is up, and nobody has answered
    for as long, nobody else is asked: no engine is there, and what was asked already will be taken when one is.

    What was not used of the rate is not saved up for later, beyond what one look may take.

    Args:
        asked: what is asked of each.
        ids: of whom; frozen here, each once, asked in this order.
        now: the instant at which it begins.
        per_second: so many are asked in a second, the first at once.
        within: after this time without an answer a saga counts as not taken.

    Raises:
        ValueError: the rate is not above zero.
    """

    def __init__(
        self,
        asked: Asked,
        ids: Iterable[UUID],
        *,
        now: float,
        per_second: float,
        within: timedelta,
    ) -> None:
        if per_second <= 0:
            raise ValueError(f"a rate of {per_second:g} sagas a second would never end")
        self._word, self._per_second, self._within = action_word(asked), per_second, within
        self._waiting = deque(dict.fromkeys(ids))
        self._out: dict[UUID, tuple[UUID, float]] = {}
        self._most_at_once = max(1.0, per_second * SLOWEST_LOOK)
        self._allowed, self._allowed_at = 1.0, now
        self._heard_at = now

    @property
    def over(self) -> bool:
        """Whether each has its result."""
        return not self._waiting and not self._out

    @property
    def out(self) -> list[UUID]:
        """The signals whose answers are awaited."""
        return list(self._out)

    def due(self, now: float) -> list[UUID]:
        """Whom to ask now."""
        gained = (now - self._allowed_at) * self._per_second
        self._allowed, self._allowed_at = min(self._allowed + gained, self._most_at_once), now
        count = min(int(self._allowed), MAX_OUT - len(self._out), len(self._waiting))
        return list(islice(self._waiting, count))

    def asked(self, signals: Mapping[UUID, UUID | None], now: float) -> list[BulkResult]:
        """Take note that these were asked, each by which signal; None: there is no such saga."""
        self._allowed -= len(signals)
        unknown: list[BulkResult] = []
        for saga_id, signal_id in signals.items():
            self._waiting.remove(saga_id)
            if signal_id is None:
                unknown.append(BulkResult(saga_id, BulkOutcome.UNKNOWN, UnknownSaga(saga_id)))
            else:
                self._out[signal_id] = saga_id, now + self._within.total_seconds()
        return unknown

    def answered(self, refusals: Mapping[UUID, str], now: float) -> list[BulkResult]:
        """Take note of what became of signals: empty, or why they were refused. What is late counts as not taken."""
        if refusals:
            self._heard_at = now
        results = [self._answered(signal_id, refused) for signal_id, refused in refusals.items()]
        late = [(signal_id, saga_id) for signal_id, (saga_id, until) in self._out.items() if until <= now]
        for signal_id, saga_id in late:
            del self._out[signal_id]
            results.append(BulkResult(saga_id, BulkOutcome.NOT_TAKEN, NotTaken(saga_id, self._word, self._within)))
        nobody_there = late and now - self._heard_at >= self._within.total_seconds()
        return results + self._leave_alone() if nobody_there else results

    def _answered(self, signal_id: UUID, refused: str) -> BulkResult:
        saga_id, _ = self._out.pop(signal_id)
        if not refused:
            return BulkResult(saga_id, BulkOutcome.DONE)
        return BulkResult(saga_id, BulkOutcome.REFUSED, ActionRefused(saga_id, self._word, refused))

    def _leave_alone(self) -> list[BulkResult]:
        left = [BulkResult(saga_id, BulkOutcome.NOT_ASKED, NotAsked(saga_id, self._word)) for saga_id in self._waiting]
        self._waiting.clear()
        return left


class Looks:
    """How long to wait before looking again: longer each time, until something has come."""

    def __init__(self) -> None:
        self._next = FIRST_LOOK

    def pause(self, *, came: bool) -> float:
        """Seconds until the next look."""
        if came:
            self._next = FIRST_LOOK
        pause, self._next = self._next, min(self._next * 1.5, SLOWEST_LOOK)
        return pause
