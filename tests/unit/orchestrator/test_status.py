"""The table of statuses, and the joining of decisions."""

from __future__ import annotations

from dataclasses import replace

from orchestrator import Parallel, SagaStatus
from orchestrator.instance import StepKey
from orchestrator.signals import DeadlinePassed, ReplyReceived
from orchestrator.testing import SagaProbe
from orchestrator.transitions import TRANSITIONS, decide
from tests.unit.orchestrator.orders import (
    AwaitingPayment,
    CreatingOrder,
    OrderState,
    ReservingStock,
    with_steps,
)


def test_every_status_is_in_the_table_and_a_terminal_one_is_left_by_a_parents_order_alone() -> None:
    assert set(TRANSITIONS) == set(SagaStatus)
    left = {status: TRANSITIONS[status] for status in SagaStatus if status.terminal and TRANSITIONS[status]}
    assert left == {SagaStatus.COMPLETED: {SagaStatus.COMPENSATING}}, "by a parent's order alone"
    assert all(TRANSITIONS[status] for status in SagaStatus if not status.terminal)


def test_a_saga_that_turned_back_never_goes_forward_again() -> None:
    assert SagaStatus.RUNNING not in TRANSITIONS[SagaStatus.COMPENSATING]
    assert SagaStatus.COMPLETED not in TRANSITIONS[SagaStatus.COMPENSATING]


def success(step: str) -> ReplyReceived:
    return ReplyReceived(StepKey(step), 1, 1, "success", '{"warehouse": "north"}')


def test_a_saga_is_saved_once_a_batch_with_what_all_its_decisions_wrote() -> None:
    saga = with_steps(Parallel(CreatingOrder(), ReservingStock()), AwaitingPayment())
    loaded = SagaProbe(saga, OrderState()).instance

    first = decide(saga(), loaded, success("CreatingOrder"), now=loaded.updated_at)
    second = decide(saga(), first.instance, success("ReservingStock"), now=loaded.updated_at)
    joined = first.then(second)

    assert joined.changed == (StepKey("CreatingOrder"), StepKey("ReservingStock"))
    assert joined.added == (StepKey("AwaitingPayment"),)
    assert joined.instance.revision == loaded.revision
    assert joined.accepted


def test_a_row_that_is_added_and_changed_in_one_batch_is_only_added() -> None:
    saga = with_steps(ReservingStock(), AwaitingPayment())
    loaded = SagaProbe(saga, OrderState()).instance
    first = decide(saga(), loaded, success("ReservingStock"), now=loaded.updated_at)
    later = loaded.updated_at + 2 * AwaitingPayment.timeout
    second = decide(saga(), first.instance, DeadlinePassed(), now=later)

    joined = first.then(second)

    assert StepKey("AwaitingPayment") in joined.added
    assert StepKey("AwaitingPayment") not in joined.changed


def test_a_wait_that_begins_in_a_batch_still_looks_for_kept_events_when_deadlines_follow_in_it() -> None:
    saga = with_steps(ReservingStock(), AwaitingPayment())
    loaded = SagaProbe(saga, OrderState()).instance
    now = loaded.updated_at
    first = decide(saga(), loaded, success("ReservingStock"), now=now)

    second = decide(saga(), first.instance, DeadlinePassed(), now=now)

    assert first.instance.wake_at == now
    assert first.then(second).instance.wake_at == now


def test_a_reply_leaves_a_wake_up_that_is_due() -> None:
    saga = with_steps(Parallel(AwaitingPayment(), ReservingStock(), CreatingOrder()))
    probe = SagaProbe(saga, OrderState())
    due = probe.instance.updated_at
    loaded = replace(probe.instance, wake_at=due)

    decision = decide(saga(), loaded, success("ReservingStock"), now=due)

    assert decision.instance.wake_at == due
