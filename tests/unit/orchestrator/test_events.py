"""Waits: which event is theirs, which come early, and what happens when none comes."""

from __future__ import annotations

from uuid import UUID

from orchestrator import BlockedReason, Parallel, SagaStatus, WaitForEvent
from orchestrator.instance import StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    AwaitingPayment,
    CreatingOrder,
    Done,
    OrderState,
    PaymentCaptured,
    PaymentSaga,
    Refused,
    RejectOrder,
    ReserveCredit,
    ReservingCredit,
    variant,
    with_steps,
)

OTHER = UUID(int=8)
PAID = PaymentCaptured(order_id=ORDER, cents=900)


class AwaitingOwnPayment(WaitForEvent[OrderState, PaymentCaptured]):
    """Without a key: events that carry the saga's id."""

    timeout = HOUR


def waiting() -> SagaProbe[OrderState]:
    probe = SagaProbe(PaymentSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    assert (probe.status, probe.current_step) == (SagaStatus.RUNNING, "AwaitingPayment")
    return probe


def test_an_event_with_the_awaited_key_ends_the_wait() -> None:
    probe = waiting()

    probe.event(AwaitingPayment, PAID)

    assert probe.state.paid_cents == 900
    assert probe.just_sent == [ReserveCredit(order_id=ORDER, amount_cents=900)]


def test_an_event_with_another_key_does_not() -> None:
    probe = waiting()

    probe.event(AwaitingPayment, PaymentCaptured(order_id=OTHER))

    assert (probe.current_step, probe.just_sent) == ("AwaitingPayment", [])


def test_an_event_that_comes_before_the_wait_is_kept_for_it() -> None:
    probe = SagaProbe(PaymentSaga, OrderState())
    probe.event(AwaitingPayment, PAID)

    probe.reply(CreatingOrder, Done())

    assert probe.state.paid_cents == 900
    assert probe.just_sent == [ReserveCredit(order_id=ORDER, amount_cents=900)]


def test_a_wait_may_say_how_old_an_event_it_accepts() -> None:
    step = variant(AwaitingPayment, accepts_events_up_to=MINUTE)
    probe = SagaProbe(with_steps(variant(CreatingOrder, timeout=HOUR)(), step()), OrderState())
    probe.event(step, PAID)
    probe.advance(2 * MINUTE)
    probe.reply(CreatingOrder, Done())
    assert probe.current_step == "AwaitingPayment"

    probe.event(step, PaymentCaptured(order_id=ORDER, cents=1))

    assert (probe.status, probe.state.paid_cents) == (SagaStatus.COMPLETED, 1)


def test_without_a_key_an_event_is_matched_by_the_saga_id_it_carries() -> None:
    probe = SagaProbe(with_steps(AwaitingOwnPayment()), OrderState())
    (record,) = probe.instance.steps.values()
    assert record.awaited_key == f"saga-id:{probe.instance.id}"

    probe.event(AwaitingOwnPayment, PAID)

    assert probe.status is SagaStatus.COMPLETED


def test_each_wait_of_a_group_gets_the_event() -> None:
    second = type("AwaitingPaymentToo", (AwaitingPayment,), {})
    probe = SagaProbe(with_steps(Parallel(AwaitingPayment(), second())), OrderState())

    probe.event(AwaitingPayment, PAID)

    assert probe.status is SagaStatus.COMPLETED


def test_a_new_wait_looks_for_kept_events_at_once() -> None:
    probe = SagaProbe(PaymentSaga, OrderState())

    probe.reply(CreatingOrder, Done())

    looked = probe.instance.wake_at
    assert looked == probe.now + HOUR  # it was due at once, and has looked


def test_a_wait_that_expires_turns_the_saga_back() -> None:
    probe = waiting()

    probe.advance(HOUR)

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]
    assert probe.state.log == ["no payment"]
    assert probe.first_cause is not None
    assert probe.first_cause.code == "event-timeout"


def test_a_wait_that_expires_is_passed_over_if_it_says_so() -> None:
    step = variant(AwaitingPayment, on_timeout="continue")
    probe = SagaProbe(with_steps(CreatingOrder(), step(), ReservingCredit()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.advance(HOUR)

    assert probe.step_status(step) is StepStatus.EXPIRED
    assert probe.just_sent == [ReserveCredit(order_id=ORDER, amount_cents=900)]


def test_a_wait_that_expires_blocks_if_it_says_so() -> None:
    step = variant(AwaitingPayment, on_timeout="block")
    probe = SagaProbe(with_steps(step()), OrderState())

    probe.advance(HOUR)

    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.RETRIES_EXHAUSTED)


def test_a_wait_without_timeout_is_ended_by_the_sagas_deadline() -> None:
    step = variant(AwaitingPayment, timeout=None)
    probe = SagaProbe(with_steps(step(), deadline=HOUR), OrderState())

    probe.advance(HOUR)

    assert (probe.status, probe.step_status(step)) == (SagaStatus.COMPENSATED, StepStatus.CANCELLED)


def test_a_wait_ends_at_once_when_a_sibling_fails() -> None:
    probe = SagaProbe(with_steps(Parallel(AwaitingPayment(), ReservingCredit())), OrderState())

    probe.reply(ReservingCredit, Refused())

    assert probe.step_status(AwaitingPayment) is StepStatus.CANCELLED
    assert probe.status is SagaStatus.COMPENSATED


def test_an_event_for_a_saga_that_turned_back_is_not_taken() -> None:
    probe = waiting()
    probe.cancel("no longer wanted")

    probe.event(AwaitingPayment, PAID)

    assert probe.state.paid_cents == 0
