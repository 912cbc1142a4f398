"""Paused sagas: nothing leaves, nothing is applied, and no time is lost."""

from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator import ActionRefused, Parallel, SagaStatus
from orchestrator.instance import StepKey, StepStatus
from orchestrator.signals import DeadlinePassed, PauseRequested, ResumeRequested
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
    OrderState,
    PaymentCaptured,
    RejectOrder,
    ReserveCredit,
    ReservingCredit,
    ReservingStock,
    ShippingSaga,
    StockReserved,
    variant,
    with_steps,
)

BLOCKING = variant(CreatingOrder, on_exhausted="block")


def two_steps() -> SagaProbe[OrderState]:
    return SagaProbe(with_steps(CreatingOrder(), ReservingCredit()), OrderState())


def test_an_answer_that_comes_while_paused_is_applied_when_the_saga_is_resumed() -> None:
    probe = two_steps()
    probe.pause()

    probe.reply(CreatingOrder, Done())
    assert (probe.just_sent, probe.step_status(CreatingOrder)) == ([], StepStatus.OUTSTANDING)

    probe.resume()
    assert probe.just_sent == [ReserveCredit(order_id=ORDER, amount_cents=900)]


def test_a_paused_saga_has_no_wake_up_and_says_since_when_it_is_paused() -> None:
    probe = two_steps()
    paused_at = probe.now

    probe.pause()
    assert (probe.instance.paused_at, probe.instance.wake_at) == (paused_at, None)

    probe.resume()
    assert (probe.instance.paused_at, probe.status) == (None, SagaStatus.RUNNING)
    assert probe.instance.wake_at is not None


def test_nothing_that_was_parked_is_overtaken_by_what_follows_from_a_resume() -> None:
    probe = two_steps()
    probe.pause()

    decision = decide(probe.saga, probe.instance, ResumeRequested("go on"), now=probe.now + HOUR)

    assert (decision.added, decision.instance.wake_at) == ((), probe.now + HOUR)


def test_what_was_parked_is_applied_in_order_of_arrival() -> None:
    probe = SagaProbe(with_steps(Parallel(ReservingStock(), AwaitingPayment())), OrderState())
    probe.pause()
    probe.accepted(ReservingStock, 10 * MINUTE)
    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER, cents=5))
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.reply(ReservingStock, StockReserved(warehouse="south"))

    probe.resume()

    assert (probe.status, probe.state.warehouse, probe.state.paid_cents) == (SagaStatus.COMPLETED, "north", 5)
    assert [note.kind for note in probe.notes] == ["paused", "resumed", "late_reply"]


def test_deadlines_stand_still_while_paused() -> None:
    probe = two_steps()
    probe.advance(50 * SECOND)

    probe.pause()
    probe.advance(5 * HOUR)
    probe.resume()
    probe.advance(9 * SECOND)
    assert probe.instance.steps[StepKey("CreatingOrder")].attempt == 1

    probe.advance(SECOND)
    assert probe.instance.steps[StepKey("CreatingOrder")].attempt == 2


def test_the_sagas_deadline_stands_still_while_paused() -> None:
    probe = SagaProbe(with_steps(AwaitingPayment(), deadline=MINUTE), OrderState())
    probe.pause()
    probe.advance(HOUR)
    probe.resume()

    assert probe.instance.deadline == probe.now + MINUTE


def test_a_backoff_goes_on_where_it_was_when_the_saga_was_paused() -> None:
    probe = two_steps()
    probe.answer_retry(CreatingOrder)
    probe.advance(SECOND / 4)
    probe.pause()
    probe.advance(HOUR)
    assert probe.just_sent == []

    probe.resume()
    probe.advance(SECOND / 2)
    assert probe.just_sent == []
    probe.advance(SECOND / 4)
    assert probe.just_sent == [CreateOrder(order_id=ORDER)]


def test_looking_for_what_is_due_does_nothing_while_paused() -> None:
    probe = two_steps()
    probe.pause()

    decision = decide(probe.saga, probe.instance, DeadlinePassed(), now=probe.now + 5 * HOUR)

    assert decision.instance == probe.instance


def test_a_pause_while_blocked_counts_once() -> None:
    for resume_first in (True, False):
        probe = SagaProbe(with_steps(Parallel(BLOCKING(), AwaitingPayment())), OrderState())
        probe.advance(2 * MINUTE + SECOND)
        assert probe.status is SagaStatus.BLOCKED
        probe.advance(HOUR)
        probe.pause()
        probe.advance(HOUR)
        first, second = (probe.resume, probe.retry) if resume_first else (probe.retry, probe.resume)
        first()
        probe.advance(HOUR)
        second()

        left = HOUR - (2 * MINUTE + SECOND)
        assert probe.instance.steps[StepKey("AwaitingPayment")].deadline == probe.now + left


def test_a_blocked_saga_that_is_retried_while_paused_sends_when_it_is_resumed() -> None:
    probe = SagaProbe(with_steps(BLOCKING()), OrderState())
    probe.advance(2 * MINUTE + SECOND)
    probe.pause()
    probe.advance(HOUR)
    probe.retry()
    probe.advance(HOUR)
    assert (probe.status, probe.just_sent) == (SagaStatus.RUNNING, [])

    probe.resume()
    probe.advance(timedelta(0))
    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    assert probe.instance.steps[StepKey("CreatingOrder")].deadline == probe.now + MINUTE


def test_a_saga_that_is_cancelled_while_paused_turns_back_when_it_is_resumed() -> None:
    probe = two_steps()
    probe.pause()
    probe.reply(CreatingOrder, Done())
    probe.cancel("no longer wanted")
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [])

    probe.resume()

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_one_event_is_parked_for_a_wait_and_the_next_is_kept() -> None:
    other = type("AwaitingMore", (AwaitingPayment,), {})
    probe = SagaProbe(with_steps(AwaitingPayment(), other()), OrderState())
    probe.pause()
    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER, cents=5))
    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER, cents=6))

    probe.resume()

    assert (probe.status, probe.state.paid_cents) == (SagaStatus.COMPLETED, 6)


def test_a_command_written_in_the_batch_that_pauses_the_saga_waits_for_the_resume() -> None:
    probe = two_steps()
    probe.reply(CreatingOrder, Done())
    written = decide(probe.saga, probe.instance, PauseRequested("wait"), now=probe.now).instance

    assert written.steps == probe.instance.steps


def test_pausing_twice_and_resuming_what_is_not_paused_are_refused() -> None:
    probe = two_steps()
    with pytest.raises(ActionRefused, match="it is not paused"):
        probe.resume()
    probe.pause()
    with pytest.raises(ActionRefused, match="it is paused already"):
        probe.pause()


def test_an_ended_saga_is_not_paused() -> None:
    probe = SagaProbe(ShippingSaga, OrderState())
    probe.cancel("no")
    probe.reply(CreatingOrder, Done())
    probe.compensated(CreatingOrder)

    with pytest.raises(ActionRefused, match="it is compensated"):
        probe.pause()
