"""A saga driven by hand: no broker, no database, and time passes only when the test says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from messaging.codec import encode_body
from messaging.envelope import ACCEPTED, FAILURE, RETRY, SUCCESS
from messaging.messages import Failure
from orchestrator.granting import LOCK_DEADLOCK
from orchestrator.instance import Direction, SagaStatus
from orchestrator.progress import KEYLESS
from orchestrator.signals import (
    AbandonRequested,
    CancelRequested,
    CompensateRequested,
    LocalFailed,
    LocalFinished,
    LocksDenied,
    PauseRequested,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.steps import ItemStep, LocalStep, Locking, Named, Step, SubSaga, WaitForEvent
from orchestrator.testing.driven import AnyStep, C, Driven, E, Kept, R, S


class SagaProbe(Driven[S]):
    """One saga, driven by hand through the same core as in production.

        probe = SagaProbe(CreateOrderSaga, OrderState(order_id=ORDER, amount_cents=900))
        probe.reply(CreatingOrder, OrderCreated())
        probe.reply(ReservingCredit, CreditRefused(reason="limit reached"))
        assert probe.just_sent == [RejectOrder(order_id=ORDER)]

        probe.compensated(CreatingOrder)
        assert probe.status is SagaStatus.COMPENSATED

    Replies are taken as answers to the latest attempt that was sent, or to an earlier one with `attempt=`;
    a reply that comes late or twice is given by giving it again. Signals that the saga has no use for
    change nothing, and are in `notes`. A hook that raises blocks the saga, as in production; what it
    raised is in `code_errors`.

    Args:
        saga: the class.
        state: what it starts with.
        key: its business key.
        now: the instant at which it starts; aware.
        saga_id: its id, from which those of its messages follow.
    """

    def reply(
        self,
        step: type[Step[S, R]] | type[ItemStep[S, Any, R]],
        answer: R | Failure,
        *,
        attempt: int | None = None,
        item: str = "",
    ) -> None:
        """Let the participant carry the step's command out, or refuse it with a failure; for an item, by its key."""
        outcome, code = (FAILURE, answer.error_code) if isinstance(answer, Failure) else (SUCCESS, "")
        self._answer(step, Direction.ACTION, outcome, answer, code, attempt=attempt, item=item)

    def answer_retry(self, step: type[Step[S, Any]], reason: str = "busy", *, attempt: int | None = None) -> None:
        """Let the participant report a technical fault: to be tried again."""
        self._answer(step, Direction.ACTION, RETRY, Failure(reason=reason), reason, attempt=attempt)

    def accepted(self, step: type[Step[S, Any]], needs: timedelta | None = None) -> None:
        """Let the participant say that it has begun and, if given, how long it needs."""
        self._answer(step, Direction.ACTION, ACCEPTED, None, "", needs=needs)

    def compensated(self, step: type[AnyStep[S]], *, attempt: int | None = None, item: str = "") -> None:
        """Let the participant undo the step."""
        self._answer(step, Direction.COMPENSATION, SUCCESS, None, "", attempt=attempt, item=item)

    def compensation_failed(
        self, step: type[AnyStep[S]], failure: Failure, *, attempt: int | None = None, item: str = ""
    ) -> None:
        """Let the participant refuse to undo the step."""
        self._answer(step, Direction.COMPENSATION, FAILURE, failure, failure.error_code, attempt=attempt, item=item)

    def compensation_retry(self, step: type[Step[S, Any]], reason: str = "busy") -> None:
        """Let the participant report a technical fault while undoing the step."""
        self._answer(step, Direction.COMPENSATION, RETRY, Failure(reason=reason), reason)

    def ran(self, step: type[LocalStep[S]], **changes: object) -> None:
        """Let the function of a local step have run; it has set these fields of the state.

        The function itself is not called: it needs a database.
        """
        record = self._local(step, Direction.ACTION)
        state = self.state.model_copy(update=changes)
        self._tell(LocalFinished(record.key, record.attempt, encode_body(state).decode()))
        self._look()

    def refused(self, step: type[LocalStep[S]], failure: Failure) -> None:
        """Let the function of a local step have returned a failure."""
        record = self._local(step, Direction.ACTION)
        self._tell(LocalFailed(record.key, record.attempt, failure))
        self._look()

    def raised(self, step: type[LocalStep[S]], error: Exception, *, undoing: bool = False) -> None:
        """Let the function of a local step, or the one that undoes it, have raised."""
        record = self._local(step, Direction.COMPENSATION if undoing else Direction.ACTION)
        self._tell(LocalFailed(record.key, record.attempt, error=f"{type(error).__name__}: {error}"))
        self._look()

    def undone(self, step: type[LocalStep[S]]) -> None:
        """Let the function that undoes a local step have run."""
        record = self._local(step, Direction.COMPENSATION)
        self._tell(LocalFinished(record.key, record.attempt, self.instance.state))
        self._look()

    def child_completed(self, step: type[SubSaga[S, C]], child: C) -> None:
        """Let a step's child saga complete, in this state."""
        self._child(step, SagaStatus.COMPLETED, encode_body(child).decode(), "")

    def child_compensated(self, step: type[SubSaga[S, C]], child: C, why: str = "it failed") -> None:
        """Let a step's child saga end compensated, by itself or as it was ordered."""
        self._child(step, SagaStatus.COMPENSATED, encode_body(child).decode(), why)

    def child_abandoned(self, step: type[SubSaga[S, Any]], why: str = "given up") -> None:
        """Let an operator abandon a step's child saga."""
        self._child(step, SagaStatus.ABANDONED, "{}", why)

    def event(self, step: type[WaitForEvent[S, E]], event: E) -> None:
        """Let an event come. One that nobody waits for yet is kept for the wait that is to come."""
        wait = next((leaf.step for leaf in self.saga.plan.waits() if leaf.name == step.name), None)
        if wait is None:
            raise AssertionError(f"{step.name} is no wait of {type(self.saga).__name__}")
        key = wait.event_key(event)
        self._acts()
        self._kept.append(
            Kept(
                UUID(int=len(self._kept)),
                event.wire_name,
                f"{KEYLESS}{self.instance.id}" if key is None else key,
                encode_body(event).decode(),
                self.now,
            )
        )
        self._match_events()
        self._look()

    def freed(self, resource: str) -> None:
        """Another saga lets go of a resource that was `taken`."""
        self.taken.discard(resource)
        self._acts()
        self._look()

    def deadlocked(self, step: type[Locking[S]]) -> None:
        """The step waits for its locks in a circle, and is the one that is denied them."""
        self._acts()
        self._asked.pop(step.name, None)
        self._tell(LocksDenied(step.name, LOCK_DEADLOCK, "it would have waited in a circle"))
        self._look()

    def advance(self, by: timedelta) -> None:
        """Let time pass: commands that are due are sent, deadlines that are reached pass."""
        self._acts()
        until = self.now + by
        while (due := self._next_due()) is not None and due <= until:
            self.now = max(due, self.now)
            self._send_due()
            self._look()
        self.now = until

    def cancel(self, reason: str) -> None:
        """Ask for the saga to be undone.

        Raises:
            ActionRefused: its state does not allow it.
        """
        self._acts()
        self._ask("cancel", CancelRequested(reason, by="test"))

    def retry(self, step: type[Named[S]] | None = None, reason: str = "mended") -> None:
        """Try the blocked step again, and whatever hooks raised at.

        Raises:
            ActionRefused: the saga is not blocked, or at another step.
        """
        self._acts()
        self._ask("retry", RetryRequested(reason, step.name if step else "", by="test"))
        self._tell_aside()

    def skip(self, step: type[Named[S]] | None = None, reason: str = "not needed") -> None:
        """Go on without the blocked step, or without its undo.

        Raises:
            ActionRefused: the saga is not blocked, at another step, or by an error of its code.
        """
        self._acts()
        self._ask("skip", SkipRequested(reason, step.name if step else "", by="test"))
        self._tell_aside()

    def resolve(self, step: type[Named[S]] | None = None, reason: str = "done by hand") -> None:
        """Mark the blocked step, or its undo, as done by hand.

        Raises:
            ActionRefused: the saga is not blocked, at another step, or by an error of its code.
        """
        self._acts()
        self._ask("resolve", ResolveRequested(reason, step.name if step else "", by="test"))
        self._tell_aside()

    def compensate(self, reason: str) -> None:
        """Have the saga turn back.

        Raises:
            ActionRefused: it does so already, its pivot may have happened, or it has ended.
        """
        self._acts()
        self._ask("compensate", CompensateRequested(reason, by="test"))

    def abandon(self, reason: str) -> None:
        """Give the saga up as it stands.

        Raises:
            ActionRefused: it has ended.
        """
        self._acts()
        self._ask("abandon", AbandonRequested(reason, by="test"))

    def pause(self, reason: str = "wait") -> None:
        """Have the saga stand still: what the test does next is applied when it is resumed.

        Raises:
            ActionRefused: it is paused already, or has ended.
        """
        self._acts()
        self._ask("pause", PauseRequested(reason, by="test"))

    def resume(self, reason: str = "go on") -> None:
        """Have the saga go on, with what came meanwhile first.

        Raises:
            ActionRefused: it is not paused.
        """
        self._acts()
        self._ask("resume", ResumeRequested(reason, by="test"))
        parked, self._parked = self._parked, []
        for incoming in parked:
            self._tell(incoming)
        self._look()
