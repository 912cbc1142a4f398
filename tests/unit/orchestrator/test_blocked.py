"""Blocked sagas: what still happens while they wait for an operator, and what operators may ask for."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messaging.messages import Failure
from orchestrator import ActionRefused, BlockedReason, Parallel, SagaStatus, Sequence
from orchestrator.instance import StepKey, StepStatus
from orchestrator.signals import DeadlinePassed
from orchestrator.testing import SagaProbe
from orchestrator.transitions import decide
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    AwaitingPayment,
    CreateOrder,
    CreatingOrder,
    Done,
    Mailing,
    OrderState,
    PackingGift,
    PaymentCaptured,
    Refused,
    RejectOrder,
    ReserveCredit,
    ReservingCredit,
    ReservingStock,
    Shipping,
    StockReserved,
    variant,
    with_steps,
)

BLOCKING = variant(CreatingOrder, on_exhausted="block")
BLOCKING_CREDIT = variant(ReservingCredit, on_exhausted="block")
PATIENT_STOCK = variant(ReservingStock, timeout=2 * HOUR)


def blocked_beside(*others: object) -> SagaProbe[OrderState]:
    """Blocked at CreatingOrder at 2 min 1 s, with other branches in the same group."""
    probe = SagaProbe(with_steps(Parallel(BLOCKING(), *others)), OrderState())
    probe.advance(2 * MINUTE + SECOND)
    assert (probe.status, probe.current_step) == (SagaStatus.BLOCKED, "CreatingOrder")
    return probe


def test_replies_to_other_branches_are_taken_while_blocked_but_nothing_new_begins() -> None:
    gift = variant(PackingGift, when=lambda self, state: True)
    probe = blocked_beside(Sequence(PATIENT_STOCK(), gift()))

    probe.reply(PATIENT_STOCK, StockReserved(warehouse="north"))

    assert (probe.status, probe.state.warehouse) == (SagaStatus.BLOCKED, "north")
    assert probe.step_status(gift) is None

    probe.reply(BLOCKING, Done())
    assert (probe.status, probe.current_step) == (SagaStatus.RUNNING, "PackingGift")


def test_events_are_taken_while_blocked() -> None:
    probe = blocked_beside(AwaitingPayment())

    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER, cents=5))

    assert (probe.status, probe.state.paid_cents) == (SagaStatus.BLOCKED, 5)


def test_a_refusal_in_another_branch_waits_for_the_operator_and_then_turns_the_saga_back() -> None:
    probe = blocked_beside(PATIENT_STOCK())

    probe.reply(PATIENT_STOCK, Failure(reason="sold out"))
    assert probe.status is SagaStatus.BLOCKED

    probe.retry()
    assert probe.status is SagaStatus.COMPENSATING
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_deadlines_stand_still_while_blocked() -> None:
    probe = blocked_beside(AwaitingPayment())
    probe.advance(5 * HOUR)
    assert probe.step_status(AwaitingPayment) is StepStatus.WAITING

    probe.reply(BLOCKING, Done())
    probe.advance(58 * MINUTE - 2 * SECOND)
    assert probe.step_status(AwaitingPayment) is StepStatus.WAITING

    probe.advance(2 * MINUTE)
    assert probe.step_status(AwaitingPayment) is StepStatus.EXPIRED


def test_looking_for_what_is_due_does_nothing_while_blocked() -> None:
    probe = blocked_beside(AwaitingPayment())

    decision = decide(probe.saga, probe.instance, DeadlinePassed(), now=probe.now + 5 * HOUR)

    assert decision.steps == probe.instance.steps


def test_the_sagas_deadline_stands_still_while_blocked() -> None:
    probe = SagaProbe(with_steps(BLOCKING(), ReservingCredit(), deadline=HOUR), OrderState())
    probe.advance(5 * HOUR)
    assert probe.status is SagaStatus.BLOCKED

    probe.reply(BLOCKING, Done())

    assert probe.instance.deadline == probe.now + HOUR - (2 * MINUTE + SECOND)


def test_a_deadline_that_is_set_while_blocked_stands_still_from_then_on() -> None:
    probe = blocked_beside(PATIENT_STOCK())
    probe.advance(HOUR)
    probe.accepted(PATIENT_STOCK, 10 * MINUTE)
    probe.advance(HOUR)

    probe.reply(BLOCKING, Done())

    assert probe.instance.steps[StepKey("ReservingStock")].deadline == probe.now + 10 * MINUTE


def test_a_late_reply_to_another_command_that_would_block_is_the_answer() -> None:
    probe = SagaProbe(with_steps(Parallel(BLOCKING(), BLOCKING_CREDIT())), OrderState())
    probe.advance(2 * MINUTE + SECOND)
    assert probe.step_status(BLOCKING_CREDIT) is StepStatus.UNKNOWN

    probe.reply(BLOCKING_CREDIT, Done())
    assert (probe.status, probe.current_step) == (SagaStatus.BLOCKED, "CreatingOrder")

    probe.reply(BLOCKING, Done())
    assert probe.status is SagaStatus.COMPLETED


def test_a_reply_after_exhaustion_with_compensate_is_recorded_only_even_while_blocked() -> None:
    probe = SagaProbe(with_steps(Parallel(BLOCKING(), ReservingCredit())), OrderState())
    probe.advance(2 * MINUTE + SECOND)

    probe.reply(ReservingCredit, Done())

    assert probe.step_status(ReservingCredit) is StepStatus.UNKNOWN
    assert probe.notes[-1].kind == "late_reply"


def test_two_branches_that_block_are_retried_one_after_the_other() -> None:
    other = type("MailingToo", (Mailing,), {})
    probe = SagaProbe(with_steps(Shipping(), Parallel(Mailing(), other())), OrderState())
    probe.reply(Shipping, Done())
    probe.advance(HOUR)
    assert probe.current_step == "Mailing"

    probe.retry(Mailing)
    assert (probe.status, probe.current_step) == (SagaStatus.BLOCKED, "MailingToo")
    probe.retry(other)
    probe.advance(timedelta(0))
    assert probe.status is SagaStatus.RUNNING

    probe.reply(Mailing, Done())
    probe.reply(other, Done())
    assert probe.status is SagaStatus.COMPLETED


# -- retry


def test_retry_sends_the_command_again_with_the_policy_anew() -> None:
    probe = blocked_beside()

    probe.retry(BLOCKING)
    probe.advance(timedelta(0))
    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    probe.answer_retry(BLOCKING)
    probe.advance(SECOND)

    record = probe.instance.steps[StepKey("CreatingOrder")]
    assert (record.round, record.attempt, record.tries) == (1, 4, 2)
    probe.reply(BLOCKING, Done())
    assert probe.status is SagaStatus.COMPLETED


def test_retry_of_a_saga_that_is_not_blocked_is_refused() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())

    with pytest.raises(ActionRefused, match="running, not blocked"):
        probe.retry()


def test_retry_of_another_step_than_the_blocking_one_is_refused() -> None:
    probe = blocked_beside(PATIENT_STOCK())

    with pytest.raises(ActionRefused, match="blocked at CreatingOrder, not at ReservingStock"):
        probe.retry(PATIENT_STOCK)
    assert probe.status is SagaStatus.BLOCKED


def test_actions_on_an_ended_saga_are_refused() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    probe.reply(CreatingOrder, Done())

    with pytest.raises(ActionRefused, match="it is completed"):
        probe.retry()
    with pytest.raises(ActionRefused, match="it is completed"):
        probe.cancel("too late")


# -- cancel


def test_cancel_settles_what_is_out_and_then_undoes_it() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingCredit()), OrderState())

    probe.cancel("no longer wanted")
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [])

    probe.reply(CreatingOrder, Done())
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]
    assert probe.first_cause is not None
    assert (probe.first_cause.code, probe.first_cause.text) == ("cancelled", "no longer wanted")


def test_cancel_between_two_attempts_undoes_what_may_have_happened() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    probe.advance(MINUTE)

    probe.cancel("no longer wanted")

    assert probe.step_status(CreatingOrder) is StepStatus.UNKNOWN
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_cancel_of_a_refused_step_in_flight_needs_no_undo() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    probe.cancel("no longer wanted")

    probe.reply(CreatingOrder, Failure(reason="closed"))

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATED, [])


def test_cancel_during_a_wait_undoes_at_once() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), AwaitingPayment()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.cancel("no longer wanted")

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_cancel_of_a_blocked_saga_undoes_the_step_it_is_blocked_on() -> None:
    probe = blocked_beside()

    probe.cancel("give up")

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [RejectOrder(order_id=ORDER)])


def test_cancel_while_turning_back_is_refused_also_when_blocked_there() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), ReservingCredit()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Refused())
    with pytest.raises(ActionRefused, match="turning back already"):
        probe.cancel("again")

    probe.advance(HOUR)
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED
    with pytest.raises(ActionRefused, match="turning back already"):
        probe.cancel("again")
    assert probe.sent[:2] == [CreateOrder(order_id=ORDER), ReserveCredit(order_id=ORDER, amount_cents=900)]
