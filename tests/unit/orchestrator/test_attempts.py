"""Attempts and rounds: when a command is sent again, under which ids, and when it is put off."""

from __future__ import annotations

from datetime import timedelta

import pytest

from messaging.messages import Failure
from orchestrator import BlockedReason, SagaStatus
from orchestrator.ids import message_id
from orchestrator.instance import Direction, StepKey, StepRecord, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderState,
    RejectOrder,
    ReservingStock,
    StockReserved,
    variant,
    with_steps,
)

BLOCKING = variant(CreatingOrder, on_exhausted="block")


def started(step: type[CreatingOrder] = CreatingOrder) -> SagaProbe[OrderState]:
    return SagaProbe(with_steps(step()), OrderState())


def row(probe: SagaProbe[OrderState]) -> StepRecord:
    return probe.instance.steps[StepKey("CreatingOrder")]


def test_a_timeout_sends_the_same_command_again_after_the_backoff() -> None:
    probe = started()

    probe.advance(MINUTE)
    assert probe.just_sent == []
    probe.advance(SECOND)

    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    assert (row(probe).round, row(probe).attempt, row(probe).unanswered) == (1, 2, 1)


def test_a_technical_fault_sends_the_same_command_again_after_the_backoff() -> None:
    probe = started()

    probe.answer_retry(CreatingOrder, "database away")
    assert probe.just_sent == []
    probe.advance(SECOND)

    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    assert (row(probe).round, row(probe).attempt, row(probe).unanswered) == (1, 2, 0)


def test_each_attempt_has_its_own_message_id() -> None:
    probe = started()
    first = row(probe).command_id

    probe.answer_retry(CreatingOrder)

    key = StepKey("CreatingOrder")
    assert first == message_id(probe.instance.id, key, 1, 1)
    assert row(probe).command_id == message_id(probe.instance.id, key, 1, 2)


def test_the_reply_to_an_earlier_attempt_is_the_answer_and_the_pending_one_is_not_sent() -> None:
    probe = started()
    probe.advance(MINUTE)

    probe.reply(CreatingOrder, Done(), attempt=1)
    probe.advance(HOUR)

    assert probe.status is SagaStatus.COMPLETED
    assert probe.sent == [CreateOrder(order_id=ORDER)]


def test_a_fault_reported_for_an_earlier_attempt_has_no_effect() -> None:
    probe = started()
    probe.advance(MINUTE + SECOND)

    probe.answer_retry(CreatingOrder, attempt=1)

    assert row(probe).attempt == 2
    assert probe.notes[-1].kind == "duplicate"


def test_out_of_attempts_the_saga_turns_back() -> None:
    probe = started()
    probe.answer_retry(CreatingOrder, "first")
    probe.advance(SECOND)

    probe.answer_retry(CreatingOrder, "second")

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]
    assert probe.first_cause is not None
    assert probe.first_cause.code == "second"


def test_out_of_attempts_the_saga_blocks_if_the_step_says_so() -> None:
    probe = started(BLOCKING)

    probe.advance(3 * MINUTE)

    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.RETRIES_EXHAUSTED)
    assert probe.instance.wake_at is None


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_reply_that_comes_while_the_saga_is_blocked_on_the_command_unblocks_it(attempt: int) -> None:
    probe = started(BLOCKING)
    probe.advance(3 * MINUTE)

    probe.reply(BLOCKING, Done(), attempt=attempt)

    assert (probe.status, probe.blocked_reason) == (SagaStatus.COMPLETED, None)


def test_a_refusal_that_comes_while_the_saga_is_blocked_on_the_command_turns_it_back() -> None:
    probe = started(BLOCKING)
    probe.advance(3 * MINUTE)

    probe.reply(BLOCKING, Failure(reason="closed"))

    assert (row(probe).status, probe.status) == (StepStatus.REFUSED, SagaStatus.COMPENSATED)


def test_a_reply_after_exhaustion_never_advances_a_saga_that_turned_back() -> None:
    probe = started()
    probe.advance(3 * MINUTE)

    probe.reply(CreatingOrder, Done())

    assert probe.status is SagaStatus.COMPENSATING
    assert probe.notes[-1].kind == "late_reply"


def test_accepted_moves_the_deadline_and_is_not_an_answer() -> None:
    probe = started()
    probe.advance(MINUTE - SECOND)

    probe.accepted(CreatingOrder, HOUR)
    probe.advance(HOUR - SECOND)
    assert row(probe).attempt == 1

    probe.advance(2 * SECOND)
    assert row(probe).attempt == 2


def test_accepted_without_a_duration_gives_the_timeout_anew_and_may_repeat() -> None:
    probe = started()

    for _ in range(5):
        probe.advance(MINUTE - SECOND)
        probe.accepted(CreatingOrder)

    assert row(probe).attempt == 1


def test_accepted_for_an_absurd_time_is_bounded() -> None:
    probe = started()

    probe.accepted(CreatingOrder, timedelta(days=900_000_000))

    assert row(probe).deadline == probe.now + timedelta(days=366)


# -- commands that do not reach their participant


def test_a_command_that_cannot_be_sent_is_put_off_and_never_timed_out() -> None:
    probe = SagaProbe(with_steps(ReservingStock(), CreatingOrder()), OrderState())
    probe.unreachable.add("orders")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    probe.advance(10 * HOUR)

    assert (probe.status, row(probe).attempt, row(probe).unanswered) == (SagaStatus.RUNNING, 1, 0)
    assert probe.just_sent == []


def test_a_command_that_was_put_off_has_its_whole_timeout_once_it_is_sent() -> None:
    probe = SagaProbe(with_steps(ReservingStock(), CreatingOrder()), OrderState())
    probe.unreachable.add("orders")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.advance(40 * SECOND)
    probe.unreachable.clear()

    probe.advance(20 * SECOND)
    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    probe.advance(59 * SECOND)
    assert row(probe).attempt == 1

    probe.advance(SECOND)
    assert row(probe).attempt == 2


def cancelled_while_the_queue_is_missing() -> SagaProbe:
    probe = SagaProbe(with_steps(ReservingStock(), CreatingOrder()), OrderState())
    probe.unreachable.add("orders")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.advance(10 * MINUTE)
    probe.cancel("no longer wanted")
    return probe


def test_what_was_handed_over_and_not_confirmed_is_sent_again_although_the_saga_turned_back() -> None:
    probe = cancelled_while_the_queue_is_missing()
    handed_over = row(probe).command_id

    probe.unreachable.clear()
    probe.advance(MINUTE)

    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    assert row(probe).command_id == handed_over
    probe.reply(CreatingOrder, Done())
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_when_the_saga_has_turned_back_its_deadline_settles_what_is_never_confirmed() -> None:
    probe = cancelled_while_the_queue_is_missing()

    probe.advance(2 * MINUTE)

    assert probe.step_status(CreatingOrder) is StepStatus.UNKNOWN
    undo = probe.instance.steps[StepKey("CreatingOrder", Direction.COMPENSATION)]
    assert undo.status is StepStatus.OUTSTANDING
