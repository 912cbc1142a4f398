"""Ways out for operators: skip, resolve, compensate, abandon."""

from __future__ import annotations

from typing import Any

import pytest

from messaging.messages import Failure
from orchestrator import ActionRefused, BlockedReason, Parallel, SagaStatus
from orchestrator.instance import Direction, StepKey, StepRecord, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    AwaitingPayment,
    CreatingOrder,
    CreditTaken,
    Done,
    Mailing,
    OrderSaga,
    OrderState,
    OrderUndone,
    PaymentCaptured,
    Refused,
    RejectOrder,
    ReserveCredit,
    ReservingCredit,
    SendMail,
    Shipping,
    ShippingSaga,
    variant,
    with_steps,
)

BLOCKING = variant(CreatingOrder, on_exhausted="block")
BLOCKING_CREDIT = variant(ReservingCredit, on_exhausted="block")
UNDO = StepKey("CreatingOrder", Direction.COMPENSATION)


def blocked_at(*steps: Any) -> SagaProbe[OrderState]:
    probe = SagaProbe(with_steps(*steps), OrderState())
    probe.advance(2 * MINUTE + SECOND)
    assert probe.status is SagaStatus.BLOCKED
    return probe


def at_the_pivot() -> SagaProbe[OrderState]:
    probe = SagaProbe(ShippingSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.advance(HOUR)
    assert probe.blocked_reason is BlockedReason.PIVOT_UNKNOWN
    return probe


def undo_failed() -> SagaProbe[OrderState]:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingCredit(), base=OrderSaga), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Refused(reason="limit"))
    probe.advance(HOUR)
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED
    return probe


def row(probe: SagaProbe[OrderState], key: StepKey) -> StepRecord:
    return probe.instance.steps[key]


# -- skip


def test_a_skipped_step_is_recorded_with_the_reason_and_the_saga_goes_on() -> None:
    probe = blocked_at(BLOCKING(), ReservingCredit())

    probe.skip(BLOCKING, "there is an order already")

    record = row(probe, StepKey("CreatingOrder"))
    assert (record.status, record.error_text) == (StepStatus.SKIPPED, "there is an order already")
    assert probe.just_sent == [ReserveCredit(order_id=ORDER, amount_cents=900)]


def test_a_step_that_may_have_happened_is_undone_although_it_was_skipped() -> None:
    probe = blocked_at(BLOCKING(), ReservingCredit())
    probe.skip()

    probe.reply(ReservingCredit, Refused(reason="limit"))

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit")]


def test_an_answer_to_a_skipped_step_comes_too_late() -> None:
    probe = blocked_at(BLOCKING(), ReservingCredit())
    probe.skip()

    probe.reply(BLOCKING, Failure(reason="closed"))

    assert (probe.status, probe.step_status(BLOCKING)) == (SagaStatus.RUNNING, StepStatus.SKIPPED)
    assert probe.notes[-1].kind == "late_reply"


def test_a_skipped_pivot_counts_as_passed() -> None:
    probe = at_the_pivot()

    probe.skip(Shipping)

    assert probe.just_sent == [SendMail(order_id=ORDER)]
    with pytest.raises(ActionRefused, match="pivot Shipping may have happened"):
        probe.cancel("no longer wanted")


def test_a_skipped_wait_lets_the_saga_go_on() -> None:
    wait = variant(AwaitingPayment, on_timeout="block")
    probe = SagaProbe(with_steps(wait(), ReservingCredit()), OrderState())
    probe.advance(HOUR)

    probe.skip(wait, "paid in cash")

    assert (probe.step_status(wait), probe.current_step) == (StepStatus.SKIPPED, "ReservingCredit")


def test_a_saga_whose_undo_is_skipped_ends_compensated_with_exceptions() -> None:
    probe = undo_failed()

    probe.skip(CreatingOrder, "the order book is lost")

    assert probe.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS
    assert (row(probe, UNDO).status, row(probe, UNDO).error_text) == (StepStatus.SKIPPED, "the order book is lost")
    assert probe.published[-1] == OrderUndone(order_id=ORDER)


def test_with_one_undo_skipped_the_others_are_still_sent() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingCredit(), AwaitingPayment()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Done())
    probe.compensate("no hope")
    probe.advance(HOUR)
    assert (probe.status, probe.current_step) == (SagaStatus.BLOCKED, "ReservingCredit")

    probe.skip(ReservingCredit)
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]
    probe.compensated(CreatingOrder)
    assert probe.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS


# -- resolve


def test_a_step_done_by_hand_counts_as_succeeded_and_is_undone_when_the_saga_turns_back() -> None:
    probe = blocked_at(BLOCKING_CREDIT(), CreatingOrder())

    probe.resolve(BLOCKING_CREDIT, "booked by telephone")

    record = row(probe, StepKey("ReservingCredit"))
    assert (record.status, record.error_code, record.error_text) == (
        StepStatus.SUCCEEDED,
        "resolved",
        "booked by telephone",
    )
    assert probe.published == [CreditTaken(order_id=ORDER)]
    probe.reply(CreatingOrder, Failure(reason="closed"))
    assert probe.step_status(BLOCKING_CREDIT) is StepStatus.SUCCEEDED
    assert probe.status is SagaStatus.COMPENSATING


def test_a_pivot_done_by_hand_is_passed() -> None:
    probe = at_the_pivot()

    probe.resolve(Shipping, "carried there")

    assert probe.just_sent == [SendMail(order_id=ORDER)]


def test_a_saga_whose_undo_is_done_by_hand_is_compensated() -> None:
    probe = undo_failed()

    probe.resolve()

    assert (probe.status, row(probe, UNDO).error_code) == (SagaStatus.COMPENSATED, "resolved")


def test_a_retriable_step_that_was_refused_can_be_done_by_hand() -> None:
    probe = SagaProbe(ShippingSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(Shipping, Done())
    probe.advance(HOUR)
    assert probe.current_step == "Mailing"

    probe.resolve(Mailing)

    assert probe.status is SagaStatus.COMPLETED


@pytest.mark.parametrize("action", ["skip", "resolve"])
def test_only_the_step_that_blocks_is_put_right_by_hand(action: str) -> None:
    probe = SagaProbe(with_steps(BLOCKING()), OrderState())
    with pytest.raises(ActionRefused, match="it is running, not blocked"):
        getattr(probe, action)()

    probe.advance(2 * MINUTE + SECOND)
    with pytest.raises(ActionRefused, match="blocked at CreatingOrder, not at ReservingCredit"):
        getattr(probe, action)(ReservingCredit)


def unable(self: object, state: OrderState) -> None:
    raise KeyError("warehouse")


@pytest.mark.parametrize("action", ["skip", "resolve"])
def test_a_step_whose_code_raises_is_not_put_right_by_hand(action: str) -> None:
    probe = SagaProbe(with_steps(variant(CreatingOrder, when=unable)()), OrderState())
    assert probe.blocked_reason is BlockedReason.CODE_ERROR

    with pytest.raises(ActionRefused, match="code_error: deploy code that works, then retry"):
        getattr(probe, action)()


@pytest.mark.parametrize(
    ("action", "status"),
    [("skip", SagaStatus.COMPENSATED_WITH_EXCEPTIONS), ("resolve", SagaStatus.COMPENSATED)],
)
def test_an_undo_that_cannot_be_built_may_be_done_by_hand_or_skipped(action: str, status: SagaStatus) -> None:
    creating = variant(CreatingOrder, compensation=unable_to_undo)
    probe = SagaProbe(with_steps(creating(), ReservingCredit()), OrderState())
    probe.reply(creating, Done())
    probe.cancel("no longer wanted")
    probe.reply(ReservingCredit, Refused(reason="limit"))
    assert probe.blocked_reason is BlockedReason.CODE_ERROR

    getattr(probe, action)()

    assert (probe.status, probe.step_status(ReservingCredit)) == (status, StepStatus.REFUSED)


def unable_to_undo(self: object, state: OrderState) -> RejectOrder:
    raise KeyError("warehouse")


# -- compensate


def test_a_saga_that_is_ordered_back_undoes_what_happened() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), AwaitingPayment()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.compensate("no hope for payment")

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]
    assert probe.first_cause is not None
    assert (probe.first_cause.code, probe.first_cause.text) == ("compensation-ordered", "no hope for payment")


def test_a_saga_is_not_ordered_back_once_its_pivot_may_have_happened() -> None:
    with pytest.raises(ActionRefused, match="pivot Shipping may have happened"):
        at_the_pivot().compensate("no hope")


def test_a_saga_is_not_ordered_back_twice() -> None:
    probe = undo_failed()

    with pytest.raises(ActionRefused, match="turning back already"):
        probe.compensate("no hope")


# -- abandon


def test_an_abandoned_saga_awaits_nothing_and_keeps_the_reason() -> None:
    probe = SagaProbe(with_steps(Parallel(CreatingOrder(), AwaitingPayment())), OrderState())

    probe.abandon("settled on the telephone")

    assert (probe.status, probe.current_step, probe.just_sent) == (SagaStatus.ABANDONED, "", [])
    assert probe.step_status(CreatingOrder) is StepStatus.UNKNOWN
    assert probe.step_status(AwaitingPayment) is StepStatus.CANCELLED
    assert probe.first_cause is not None and probe.first_cause.text == "settled on the telephone"
    probe.reply(CreatingOrder, Done())
    assert probe.notes[-1].kind == "late_reply"


@pytest.mark.parametrize("begun", [undo_failed, at_the_pivot])
def test_a_blocked_saga_can_be_abandoned_also_after_its_pivot(begun: Any) -> None:
    probe = begun()
    cause = probe.first_cause

    probe.abandon("settled on the telephone")

    assert (probe.status, probe.blocked_reason, probe.instance.wake_at) == (SagaStatus.ABANDONED, None, None)
    assert cause is None or probe.first_cause == cause


def test_a_paused_saga_can_be_abandoned() -> None:
    probe = SagaProbe(with_steps(AwaitingPayment()), OrderState())
    probe.pause()
    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER))

    probe.abandon("settled on the telephone")

    assert (probe.status, probe.instance.paused_at) == (SagaStatus.ABANDONED, None)
