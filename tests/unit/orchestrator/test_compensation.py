"""Going back: which steps are undone, in which order, and what a saga says about why."""

from __future__ import annotations

from dataclasses import replace

import pytest

from messaging.messages import Failure
from orchestrator import BlockedReason, Parallel, Retry, SagaStatus, Sequence, Step
from orchestrator.instance import Direction, StepKey, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    CreatingOrder,
    Done,
    GiftSaga,
    OrderSaga,
    OrderState,
    OrderUndone,
    PackingGift,
    Refused,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    ReservingCredit,
    ReservingStock,
    StockReserved,
    UnpackGift,
    variant,
    with_steps,
)

NOT_DEDUPING = variant(ReservingCredit, participant_dedupes=False)


def in_the_group(state: OrderState | None = None) -> SagaProbe[OrderState]:
    probe = SagaProbe(OrderSaga, state or OrderState())
    probe.reply(CreatingOrder, Done())
    return probe


def refused_with_stock_reserved() -> SagaProbe[OrderState]:
    probe = in_the_group()
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.reply(ReservingCredit, Refused(reason="limit reached"))
    return probe


def test_refused_credit_releases_the_stock_then_rejects_the_order() -> None:
    probe = refused_with_stock_reserved()
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]
    assert probe.status is SagaStatus.COMPENSATING

    probe.compensated(ReservingStock)
    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit reached")]

    probe.compensated(CreatingOrder)
    assert (probe.status, probe.current_step) == (SagaStatus.COMPENSATED, "")
    assert probe.published == [OrderUndone(order_id=ORDER)]


def test_a_refused_step_is_not_undone() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())

    probe.reply(CreatingOrder, Failure(reason="closed"))

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])


def test_a_step_that_ran_out_of_time_is_undone_since_it_may_have_happened() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())

    probe.advance(3 * MINUTE)

    assert probe.step_status(CreatingOrder) is StepStatus.UNKNOWN
    assert probe.just_sent[-1] == RejectOrder(order_id=ORDER)


def test_steps_that_were_skipped_or_never_reached_are_not_undone() -> None:
    probe = SagaProbe(with_steps(PackingGift(), CreatingOrder(), ReservingStock()), OrderState())

    probe.reply(CreatingOrder, Failure(reason="closed"))

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])


def test_steps_of_a_sequence_are_undone_one_after_the_other_backwards() -> None:
    saga = with_steps(CreatingOrder(), ReservingStock(), ReservingCredit())
    probe = SagaProbe(saga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    probe.reply(ReservingCredit, Refused())
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]

    probe.compensated(ReservingStock)
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_branches_of_a_group_are_undone_together_each_backwards_in_itself() -> None:
    saga = with_steps(Parallel(ReservingCredit(), Sequence(ReservingStock(), PackingGift())), CreatingOrder())
    probe = SagaProbe(saga, OrderState(gift=True))
    probe.reply(ReservingCredit, Done())
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.reply(PackingGift, Done())

    probe.reply(CreatingOrder, Failure())
    assert probe.just_sent == [ReleaseCredit(order_id=ORDER), UnpackGift(order_id=ORDER)]

    probe.compensated(PackingGift)
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]
    probe.compensated(ReservingStock)
    assert probe.status is SagaStatus.COMPENSATING

    probe.compensated(ReservingCredit)
    assert probe.status is SagaStatus.COMPENSATED


def test_a_compensation_that_has_nothing_to_undo_in_this_state_counts_as_done() -> None:
    probe = SagaProbe(with_steps(PackingGift(), CreatingOrder()), OrderState(gift=True, warehouse="no-unpacking"))
    probe.reply(PackingGift, Done())

    probe.reply(CreatingOrder, Failure())

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])
    undo = probe.instance.steps[StepKey("PackingGift", Direction.COMPENSATION)]
    assert (undo.status, undo.error_code) == (StepStatus.SUCCEEDED, "nothing-to-undo")


def test_the_compensation_names_the_idempotency_key_of_what_it_undoes() -> None:
    probe = refused_with_stock_reserved()

    undo = probe.instance.steps[StepKey("ReservingStock", Direction.COMPENSATION)]

    assert undo.compensates == f"{probe.instance.id}/ReservingStock/action#1"


# -- settling


def test_nothing_is_undone_while_a_sibling_is_still_out() -> None:
    probe = in_the_group()

    probe.reply(ReservingCredit, Refused())
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [])
    assert probe.current_step == "ReservingStock"

    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]


def test_a_sibling_that_does_not_answer_is_undone_after_its_timeout_and_not_tried_again() -> None:
    probe = in_the_group()
    probe.reply(ReservingCredit, Refused())

    probe.advance(MINUTE)

    assert probe.step_status(ReservingStock) is StepStatus.UNKNOWN
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]


def test_a_sibling_that_reports_a_fault_while_settling_is_not_tried_again() -> None:
    probe = in_the_group()
    probe.reply(ReservingCredit, Refused())

    probe.answer_retry(ReservingStock)

    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]


def test_a_sibling_that_reports_a_fault_while_a_code_error_blocks_the_way_back_is_not_tried_again() -> None:
    def on_failure(self: object, state: OrderState, failure: Failure) -> None:
        raise KeyError(failure.reason)

    third = variant(PackingGift, on_failure=on_failure)
    saga = with_steps(Parallel(ReservingCredit(), ReservingStock(), third()))
    probe = SagaProbe(saga, OrderState(gift=True))
    probe.reply(ReservingCredit, Refused())
    probe.reply(third, Failure(reason="paper"))
    assert probe.blocked_reason is BlockedReason.CODE_ERROR

    probe.answer_retry(ReservingStock)
    probe.advance(MINUTE)

    assert probe.step_status(ReservingStock) is StepStatus.UNKNOWN
    assert probe.just_sent == []


def test_a_sibling_that_waits_for_its_next_attempt_is_not_sent_again_but_undone() -> None:
    probe = in_the_group()
    probe.answer_retry(ReservingStock)

    probe.reply(ReservingCredit, Refused())

    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]


def test_a_sibling_that_was_never_handed_to_the_broker_did_not_happen() -> None:
    saga = with_steps(Parallel(ReservingCredit(), ReservingStock()))
    probe = SagaProbe(saga, OrderState())
    key = StepKey("ReservingStock")
    written_only = replace(probe.instance.steps[key], send_after=probe.now, send_attempts=0, sent_at=None)
    probe.instance = replace(probe.instance, steps={**probe.instance.steps, key: written_only})

    probe.reply(ReservingCredit, Refused())

    assert probe.step_status(ReservingStock) is StepStatus.CANCELLED
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])


def test_a_sequence_takes_no_next_step_while_the_saga_settles() -> None:
    probe = SagaProbe(GiftSaga, OrderState(gift=True))
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Refused())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.step_status(PackingGift) is None
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]


def test_a_step_that_succeeds_while_settling_publishes_nothing() -> None:
    probe = in_the_group()
    probe.reply(ReservingStock, Failure())

    probe.reply(ReservingCredit, Done())

    assert probe.just_sent == [ReleaseCredit(order_id=ORDER)]
    assert probe.published == []


def test_an_action_whose_reply_comes_after_its_undo_has_begun_stays_undone() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingStock()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.advance(3 * MINUTE)
    assert probe.just_sent[-1] == ReleaseStock(order_id=ORDER)

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.step_status(ReservingStock) is StepStatus.UNKNOWN
    assert [note.kind for note in probe.notes][-1] == "late_reply"
    probe.compensated(ReservingStock)
    probe.compensated(CreatingOrder)
    assert probe.status is SagaStatus.COMPENSATED


def test_a_copy_of_a_forward_reply_is_not_taken_for_the_undos_reply() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingStock()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingStock, Failure(reason="sold out"))
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]

    probe.reply(CreatingOrder, Done())

    assert probe.status is SagaStatus.COMPENSATING
    probe.compensated(CreatingOrder)
    assert probe.status is SagaStatus.COMPENSATED


# -- the first cause


def test_the_first_cause_stays_when_more_goes_wrong_on_the_way_back() -> None:
    probe = in_the_group()
    probe.reply(ReservingCredit, Refused(reason="limit reached"))
    probe.reply(ReservingStock, Failure(reason="sold out", code="sold-out"))

    cause = probe.first_cause

    assert cause is not None
    assert (cause.step, cause.code, cause.text) == ("ReservingCredit", "refused", "limit reached")


def test_a_timeout_as_first_cause_names_the_participant() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())

    probe.advance(3 * MINUTE)

    cause = probe.first_cause
    assert cause is not None
    assert (cause.step, cause.code, cause.text) == ("CreatingOrder", "timeout", "no reply from orders in time")


# -- compensations that fail


def test_a_failed_compensation_is_tried_again_in_a_new_round_then_blocks() -> None:
    probe = refused_with_stock_reserved()

    probe.compensation_failed(ReservingStock, Failure(reason="locked"))
    undo = probe.instance.steps[StepKey("ReservingStock", Direction.COMPENSATION)]
    assert (undo.round, undo.attempt) == (2, 2)
    probe.advance(SECOND)
    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]

    probe.compensation_failed(ReservingStock, Failure(reason="locked"))
    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.COMPENSATION_FAILED)
    assert probe.current_step == "ReservingStock"


def test_a_repeated_failure_of_an_earlier_round_uses_up_no_attempt() -> None:
    probe = refused_with_stock_reserved()
    probe.compensation_failed(ReservingStock, Failure(reason="locked"))

    probe.compensation_failed(ReservingStock, Failure(reason="locked"), attempt=1)

    undo = probe.instance.steps[StepKey("ReservingStock", Direction.COMPENSATION)]
    assert (undo.round, undo.attempt) == (2, 2)
    assert probe.notes[-1].kind == "duplicate"


def test_a_success_of_an_earlier_round_counts_and_stops_the_pending_attempt() -> None:
    probe = refused_with_stock_reserved()
    probe.compensation_failed(ReservingStock, Failure(reason="locked"))

    probe.compensated(ReservingStock, attempt=1)

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit reached")]
    probe.advance(SECOND)
    assert probe.just_sent == []


def test_earlier_undos_wait_for_one_that_failed() -> None:
    probe = refused_with_stock_reserved()
    probe.compensation_failed(ReservingStock, Failure())
    probe.advance(SECOND)
    probe.compensation_failed(ReservingStock, Failure())

    assert RejectOrder(order_id=ORDER) not in probe.sent
    assert probe.instance.wake_at is None


@pytest.mark.parametrize("unknown", [True, False])
def test_a_late_success_unblocks_a_failed_compensation(unknown: bool) -> None:
    probe = refused_with_stock_reserved()
    if unknown:
        probe.advance(3 * MINUTE)
    else:
        probe.compensation_failed(ReservingStock, Failure())
        probe.advance(SECOND)
        probe.compensation_failed(ReservingStock, Failure())
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED

    probe.compensated(ReservingStock, attempt=1)

    assert probe.status is SagaStatus.COMPENSATING
    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit reached")]


def test_the_other_undos_go_on_if_the_saga_says_so_and_then_it_blocks() -> None:
    saga = with_steps(*OrderSaga.steps, on_compensation_failure="continue_others")
    probe = SagaProbe(saga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.reply(ReservingCredit, Refused())
    probe.compensation_failed(ReservingStock, Failure())
    probe.advance(SECOND)

    probe.compensation_failed(ReservingStock, Failure())
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [RejectOrder(order_id=ORDER)])

    probe.compensated(CreatingOrder)
    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.COMPENSATION_FAILED)

    probe.retry(ReservingStock)
    probe.compensated(ReservingStock)
    assert probe.status is SagaStatus.COMPENSATED


# -- participants that do not dedupe


def not_deduping() -> tuple[SagaProbe[OrderState], type[Step[OrderState, Done]]]:
    return SagaProbe(with_steps(NOT_DEDUPING()), OrderState()), NOT_DEDUPING


def test_without_dedupe_a_refusal_means_it_did_not_happen_if_no_other_attempt_is_unanswered() -> None:
    probe, step = not_deduping()

    probe.reply(step, Refused())

    assert (probe.step_status(step), probe.status) == (StepStatus.REFUSED, SagaStatus.COMPENSATED)


def test_without_dedupe_a_refusal_beside_an_unanswered_attempt_is_undone() -> None:
    probe, step = not_deduping()
    probe.advance(MINUTE + SECOND)

    probe.reply(step, Refused(), attempt=2)

    assert probe.step_status(step) is StepStatus.UNKNOWN
    assert probe.just_sent == [ReleaseCredit(order_id=ORDER)]


def test_without_dedupe_a_late_refusal_of_the_only_attempt_that_was_sent_means_it_did_not_happen() -> None:
    probe, step = not_deduping()
    probe.advance(MINUTE)

    probe.reply(step, Refused(), attempt=1)

    assert (probe.step_status(step), probe.status) == (StepStatus.REFUSED, SagaStatus.COMPENSATED)


def test_without_dedupe_a_refusal_of_the_first_attempt_while_the_second_is_out_is_undone() -> None:
    probe, step = not_deduping()
    probe.advance(MINUTE + SECOND)

    probe.reply(step, Refused(), attempt=1)

    assert probe.step_status(step) is StepStatus.UNKNOWN
    assert probe.just_sent == [ReleaseCredit(order_id=ORDER)]


def test_with_dedupe_a_refusal_is_enough_whatever_is_unanswered() -> None:
    probe = SagaProbe(with_steps(ReservingCredit()), OrderState())
    probe.advance(MINUTE + SECOND)

    probe.reply(ReservingCredit, Refused(), attempt=1)

    assert (probe.step_status(ReservingCredit), probe.status) == (StepStatus.REFUSED, SagaStatus.COMPENSATED)


def test_without_dedupe_a_late_refusal_of_the_last_attempt_alone_unanswered_means_it_did_not_happen() -> None:
    step = variant(NOT_DEDUPING, retry=Retry(max_attempts=1), on_exhausted="block")
    probe = SagaProbe(with_steps(step()), OrderState())
    probe.advance(MINUTE)
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    probe.reply(step, Refused())

    assert (probe.step_status(step), probe.status) == (StepStatus.REFUSED, SagaStatus.COMPENSATED)


def test_a_repeated_refusal_of_a_compensation_that_blocks_is_a_duplicate() -> None:
    probe = refused_with_stock_reserved()
    probe.compensation_failed(ReservingStock, Failure())
    probe.advance(SECOND)
    probe.compensation_failed(ReservingStock, Failure())
    blocked_at = probe.instance.blocked_at
    probe.advance(HOUR)

    probe.compensation_failed(ReservingStock, Failure())

    assert probe.instance.blocked_at == blocked_at
    assert probe.notes[-1].kind == "duplicate"
