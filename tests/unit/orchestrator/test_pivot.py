"""The point of no return: its outcome is never guessed, and after it nothing turns back."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messaging.messages import Failure
from orchestrator import ActionRefused, BlockedReason, SagaStatus
from orchestrator.instance import StepKey, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    AwaitingPayment,
    CreatingOrder,
    Done,
    Mailing,
    OrderState,
    PaymentCaptured,
    RejectOrder,
    SendMail,
    Ship,
    Shipping,
    ShippingSaga,
    variant,
    with_steps,
)


def at_the_pivot() -> SagaProbe[OrderState]:
    probe = SagaProbe(ShippingSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    assert probe.just_sent == [Ship(order_id=ORDER)]
    return probe


def after_the_pivot() -> SagaProbe[OrderState]:
    probe = at_the_pivot()
    probe.reply(Shipping, Done())
    assert probe.just_sent == [SendMail(order_id=ORDER)]
    return probe


def test_a_refused_pivot_undoes_what_ran_before_it() -> None:
    probe = at_the_pivot()

    probe.reply(Shipping, Failure(reason="no carrier"))

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="no carrier")]


def test_a_pivot_without_an_answer_blocks_and_is_not_guessed() -> None:
    probe = at_the_pivot()

    probe.advance(HOUR)

    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.PIVOT_UNKNOWN)
    assert probe.just_sent == [Ship(order_id=ORDER)]  # the second attempt; nothing was undone


def test_the_pivot_is_tried_again_with_the_same_key() -> None:
    probe = at_the_pivot()
    probe.advance(HOUR)

    probe.retry(Shipping)
    probe.advance(timedelta(0))

    record = probe.instance.steps[StepKey("Shipping")]
    assert (record.round, record.attempt, record.tries) == (1, 3, 1)
    assert probe.just_sent == [Ship(order_id=ORDER)]


def test_a_late_reply_to_the_pivot_unblocks_the_saga() -> None:
    probe = at_the_pivot()
    probe.advance(HOUR)

    probe.reply(Shipping, Done(), attempt=1)

    assert (probe.status, probe.just_sent) == (SagaStatus.RUNNING, [SendMail(order_id=ORDER)])


def test_a_late_refusal_of_the_pivot_turns_the_saga_back() -> None:
    probe = at_the_pivot()
    probe.advance(HOUR)

    probe.reply(Shipping, Failure(reason="no carrier"), attempt=2)

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="no carrier")]


def test_cancel_is_refused_while_the_pivot_is_out_blocked_or_passed() -> None:
    probe = at_the_pivot()
    with pytest.raises(ActionRefused, match="Shipping may have happened"):
        probe.cancel("no longer wanted")

    probe.advance(HOUR)
    with pytest.raises(ActionRefused, match="Shipping may have happened"):
        probe.cancel("no longer wanted")

    probe.reply(Shipping, Done())
    with pytest.raises(ActionRefused, match="Shipping may have happened"):
        probe.cancel("no longer wanted")
    assert probe.status is SagaStatus.RUNNING


def test_a_skipped_pivot_counts_as_passed() -> None:
    skipped = variant(Shipping, when=lambda self, state: False)
    probe = SagaProbe(with_steps(CreatingOrder(), skipped(), Mailing()), OrderState())
    probe.reply(CreatingOrder, Done())
    assert probe.just_sent == [SendMail(order_id=ORDER)]

    with pytest.raises(ActionRefused):
        probe.cancel("no longer wanted")


def test_before_the_pivot_the_sagas_deadline_turns_it_back() -> None:
    probe = SagaProbe(with_steps(*ShippingSaga.steps, deadline=30 * SECOND), OrderState())

    probe.advance(30 * SECOND)
    assert probe.status is SagaStatus.COMPENSATING
    assert probe.first_cause is not None
    assert (probe.first_cause.step, probe.first_cause.code) == ("CreatingOrder", "saga-deadline")

    probe.reply(CreatingOrder, Done())
    probe.compensated(CreatingOrder)
    assert probe.status is SagaStatus.COMPENSATED


def test_while_the_pivot_is_out_the_sagas_deadline_only_raises_the_alarm() -> None:
    probe = SagaProbe(with_steps(*ShippingSaga.steps, deadline=30 * SECOND), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.advance(40 * SECOND)

    assert probe.status is SagaStatus.RUNNING
    assert [note.kind for note in probe.notes] == ["deadline_missed"]
    probe.reply(Shipping, Failure())
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_a_retriable_step_is_tried_again_in_a_new_round_after_a_refusal() -> None:
    probe = after_the_pivot()

    probe.reply(Mailing, Failure(reason="mailbox full"))
    probe.advance(SECOND)

    record = probe.instance.steps[StepKey("Mailing")]
    assert (probe.status, probe.just_sent) == (SagaStatus.RUNNING, [SendMail(order_id=ORDER)])
    assert (record.round, record.attempt) == (2, 2)
    assert probe.state.log == ["mailbox full"]


def test_a_retriable_step_keeps_its_round_after_a_timeout() -> None:
    probe = after_the_pivot()

    probe.advance(MINUTE + SECOND)

    record = probe.instance.steps[StepKey("Mailing")]
    assert (record.round, record.attempt) == (1, 2)


@pytest.mark.parametrize("refused", [True, False])
def test_a_retriable_step_out_of_attempts_blocks_and_can_be_retried(refused: bool) -> None:
    probe = after_the_pivot()
    if refused:
        probe.reply(Mailing, Failure())
        probe.advance(SECOND)
        probe.reply(Mailing, Failure())
    else:
        probe.advance(HOUR)
    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.RETRIES_EXHAUSTED)

    probe.retry(Mailing)
    record = probe.instance.steps[StepKey("Mailing")]
    assert (record.round, record.attempt, record.tries) == ((3 if refused else 1), 3, 1)
    probe.advance(timedelta(0))

    probe.reply(Mailing, Done())
    assert probe.status is SagaStatus.COMPLETED


def test_a_late_success_unblocks_a_retriable_step_whatever_its_round() -> None:
    probe = after_the_pivot()
    probe.reply(Mailing, Failure())
    probe.advance(SECOND)
    probe.reply(Mailing, Failure())

    probe.reply(Mailing, Done(), attempt=1)

    assert probe.status is SagaStatus.COMPLETED


def test_a_late_refusal_of_a_blocked_retriable_step_leaves_it_blocked_with_a_new_round_to_come() -> None:
    probe = after_the_pivot()
    probe.advance(HOUR)

    probe.reply(Mailing, Failure(reason="mailbox full"))

    assert (probe.status, probe.step_status(Mailing)) == (SagaStatus.BLOCKED, StepStatus.REFUSED)
    probe.retry()
    assert probe.instance.steps[StepKey("Mailing")].round == 2


def test_a_wait_after_the_pivot_that_expires_blocks_and_a_retry_waits_again() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), Shipping(), AwaitingPayment()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(Shipping, Done())
    probe.advance(HOUR)
    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.RETRIES_EXHAUSTED)

    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER, cents=5))
    assert probe.status is SagaStatus.BLOCKED

    probe.retry(AwaitingPayment)
    assert (probe.status, probe.state.paid_cents) == (SagaStatus.COMPLETED, 5)
