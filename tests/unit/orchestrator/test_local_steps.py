"""Local steps: functions that run in one transaction with the saga's rows."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.messages import Event, Failure
from messaging.retry import Retry
from orchestrator import BlockedReason, LocalStep, Parallel, SagaDefinitionError, SagaStatus
from orchestrator.instance import StepStatus
from orchestrator.signals import LocalFinished
from orchestrator.testing import SagaProbe
from orchestrator.transitions import decide
from tests.unit.orchestrator.orders import (
    HOUR,
    ORDER,
    SECOND,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderPlaced,
    OrderState,
    Refused,
    RejectOrder,
    ReservingCredit,
    Shipping,
    variant,
    with_steps,
)

TWICE = Retry(max_attempts=2, backoff=SECOND, jitter=0)


class Booking(LocalStep[OrderState]):
    retry = TWICE
    compensation_retry = TWICE

    async def run(self, state: OrderState, session: AsyncSession) -> Failure | None:
        return None

    def on_failure(self, state: OrderState, failure: Failure) -> None:
        state.refusal = failure.reason

    async def undo(self, state: OrderState, session: AsyncSession) -> None:
        pass

    def events(self, state: OrderState) -> list[Event]:
        return [OrderPlaced(order_id=state.order_id)]


class Closing(Booking):
    retriable = True
    undo = LocalStep.undo  # type: ignore[assignment]


class Deciding(Closing):
    retriable = False
    pivot = True


def test_a_function_that_has_run_is_followed_by_the_next_step_and_its_state_is_kept() -> None:
    probe = SagaProbe(with_steps(Booking(), CreatingOrder()), OrderState())
    assert (probe.current_step, probe.sent) == ("Booking", [])

    probe.ran(Booking, warehouse="north")

    assert probe.state.warehouse == "north"
    assert probe.published == [OrderPlaced(order_id=ORDER)]
    assert probe.sent == [CreateOrder(order_id=ORDER)]


def test_the_decision_names_the_function_to_run_and_again_when_nobody_has_run_it() -> None:
    probe = SagaProbe(with_steps(Booking()), OrderState())
    assert probe.local == [probe.instance.steps[key].key for key in probe.instance.steps]

    probe.advance(4 * SECOND)
    assert len(probe.local) == 1
    probe.advance(SECOND)
    assert len(probe.local) == 2


def test_a_refusal_turns_the_saga_back_and_needs_no_undo() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), Booking()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.refused(Booking, Failure(reason="no seat"))

    assert probe.step_status(Booking) is StepStatus.REFUSED
    assert probe.state.refusal == "no seat"
    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="no seat")]


def test_a_function_that_raises_is_run_again_by_the_policy_and_then_has_not_happened() -> None:
    probe = SagaProbe(with_steps(Booking()), OrderState())

    probe.raised(Booking, ValueError("no table"))
    assert probe.step_status(Booking) is StepStatus.WAITING
    probe.advance(SECOND)
    assert len(probe.local) == 2
    probe.raised(Booking, ValueError("no table"))

    assert probe.step_status(Booking) is StepStatus.REFUSED
    assert probe.status is SagaStatus.COMPENSATED
    assert probe.first_cause is not None
    assert (probe.first_cause.code, probe.first_cause.text) == ("raised", "ValueError: no table")


def test_a_function_that_raises_blocks_in_the_end_if_the_step_says_so_and_a_retry_runs_it_again() -> None:
    probe = SagaProbe(with_steps(variant(Booking, on_exhausted="block", retry=Retry(max_attempts=1))()), OrderState())
    probe.raised(Booking, ValueError("no table"))
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    probe.retry(Booking)
    assert len(probe.local) == 2
    probe.ran(Booking)

    assert probe.status is SagaStatus.COMPLETED


def test_what_a_function_did_is_undone_by_the_other() -> None:
    probe = SagaProbe(with_steps(Booking(), ReservingCredit()), OrderState())
    probe.ran(Booking)
    probe.reply(ReservingCredit, Refused(reason="limit"))
    assert probe.status is SagaStatus.COMPENSATING

    probe.undone(Booking)

    assert probe.status is SagaStatus.COMPENSATED


def test_an_undo_that_raises_is_run_again_and_then_blocks() -> None:
    probe = SagaProbe(with_steps(Booking(), ReservingCredit()), OrderState())
    probe.ran(Booking)
    probe.reply(ReservingCredit, Refused(reason="limit"))
    probe.raised(Booking, ValueError("locked"), undoing=True)
    probe.advance(SECOND)
    probe.raised(Booking, ValueError("locked"), undoing=True)
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED

    probe.skip(Booking, "cleaned by hand")

    assert probe.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS


def test_a_function_that_has_not_run_when_the_saga_turns_back_never_does() -> None:
    probe = SagaProbe(with_steps(Parallel(Booking(), ReservingCredit())), OrderState())
    (key,) = probe.local
    probe.reply(ReservingCredit, Refused(reason="limit"))

    assert probe.step_status(Booking) is StepStatus.CANCELLED
    assert probe.status is SagaStatus.COMPENSATED
    late = decide(probe.saga, probe.instance, LocalFinished(key, 1, "{}"), now=probe.now)
    assert not late.accepted


def test_a_paused_saga_runs_no_function_until_it_is_resumed() -> None:
    probe = SagaProbe(with_steps(Booking()), OrderState())
    probe.pause()
    probe.advance(HOUR)
    assert len(probe.local) == 1

    probe.resume()

    assert len(probe.local) == 2


def test_a_local_pivot_that_is_refused_undoes_what_ran_before_it() -> None:
    probe = SagaProbe(with_steps(Booking(), Deciding()), OrderState())
    probe.ran(Booking)
    probe.refused(Deciding, Failure(reason="too late"))
    assert probe.status is SagaStatus.COMPENSATING
    probe.undone(Booking)

    assert probe.status is SagaStatus.COMPENSATED


def test_a_local_step_after_the_pivot_is_run_until_its_policy_ends_and_then_blocks() -> None:
    probe = SagaProbe(with_steps(Shipping(), Closing()), OrderState())
    probe.reply(Shipping, Done())
    probe.refused(Closing, Failure(reason="locked"))
    assert probe.step_status(Closing) is StepStatus.WAITING
    probe.refused(Closing, Failure(reason="locked"))
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    probe.resolve(Closing)

    assert probe.status is SagaStatus.COMPLETED


def test_a_function_done_by_hand_is_undone_like_any_other() -> None:
    blocking = variant(Booking, on_exhausted="block", retry=Retry(max_attempts=1))
    probe = SagaProbe(with_steps(blocking(), ReservingCredit()), OrderState())
    probe.raised(Booking, ValueError("no table"))
    probe.resolve(Booking)
    probe.reply(ReservingCredit, Refused(reason="limit"))

    probe.undone(Booking)

    assert probe.status is SagaStatus.COMPENSATED


def test_the_fingerprint_tells_that_a_step_is_local_its_role_and_whether_it_is_undone() -> None:
    undone, kept = Booking(), variant(Booking, nothing_to_undo=True, undo=LocalStep.undo)()

    prints = {with_steps(step).plan.fingerprint for step in (undone, kept, CreatingOrder())}
    assert len(prints) == 3
    assert with_steps(variant(Booking, timeout=HOUR)()).plan.fingerprint in prints


def plain(self: object, state: OrderState, session: AsyncSession) -> None: ...


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"run": plain}, "write async def run"),
        ({"nothing_to_undo": True}, "undo"),
        ({"pivot": True}, "undo"),
        ({"undo": LocalStep.undo, "retriable": True, "on_exhausted": "compensate"}, "at or after the pivot"),
        ({"timeout": -SECOND}, "not positive"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else value,
)
def test_a_local_step_that_contradicts_itself_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(SagaDefinitionError, match=problem):
        variant(Booking, **changes)


def test_a_local_step_says_how_it_is_undone() -> None:
    with pytest.raises(SagaDefinitionError, match=r"Define undo\(\), or set nothing_to_undo"):
        with_steps(variant(Booking, undo=LocalStep.undo)())
