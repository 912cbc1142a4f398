"""Sagas that start sagas: a child completes, fails, is cancelled, is held and goes back."""

from __future__ import annotations

from typing import Any

import pytest

from messaging.messages import Event
from orchestrator import BlockedReason, Parallel, Saga, SagaDefinitionError, SagaStatus, SubSaga, graph
from orchestrator.instance import StepKey, StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
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


class ShippingOrders(Saga[OrderState]):
    steps = (CreatingOrder(),)


class Delivering(SubSaga[OrderState, OrderState]):
    saga = ShippingOrders

    def child_state(self, state: OrderState) -> OrderState:
        return OrderState(order_id=state.order_id, warehouse="north")

    def on_completed(self, state: OrderState, child: OrderState) -> None:
        state.warehouse = child.warehouse

    def on_compensated(self, state: OrderState, child: OrderState) -> None:
        state.refusal = child.refusal

    def events(self, state: OrderState) -> list[Event]:
        return [OrderPlaced(order_id=state.order_id)]


class DeliveringLate(Delivering):
    retriable = True


CHILD_STATE = OrderState(warehouse="south", refusal="no van")


def test_a_child_that_completes_is_followed_by_the_next_step() -> None:
    probe = SagaProbe(with_steps(Delivering(), CreatingOrder()), OrderState())
    assert (probe.current_step, probe.sent) == ("Delivering", [])
    assert probe.children == [OrderState(order_id=ORDER, warehouse="north")]

    probe.child_completed(Delivering, CHILD_STATE)

    assert probe.state.warehouse == "south"
    assert probe.published == [OrderPlaced(order_id=ORDER)]
    assert probe.current_step == "CreatingOrder"


def test_the_end_of_a_child_that_is_told_twice_has_no_effect_the_second_time() -> None:
    probe = SagaProbe(with_steps(Delivering(), CreatingOrder()), OrderState())
    probe.child_completed(Delivering, CHILD_STATE)
    revision = probe.instance.steps

    probe.child_completed(Delivering, CHILD_STATE)

    assert probe.instance.steps == revision


def test_a_child_that_is_compensated_turns_its_parent_back() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), Delivering()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.child_compensated(Delivering, CHILD_STATE, "refused: no van")

    assert probe.step_status(Delivering) is StepStatus.REFUSED
    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="no van")]
    assert probe.first_cause is not None
    assert (probe.first_cause.code, probe.first_cause.text) == ("child-compensated", "refused: no van")
    assert probe.ordered == []


def test_a_completed_child_is_ordered_back_and_awaited() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), Delivering(), ReservingCredit()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.child_completed(Delivering, CHILD_STATE)
    probe.reply(ReservingCredit, Refused(reason="limit"))
    assert probe.ordered == ["compensate"]
    assert probe.just_sent == []

    probe.child_compensated(Delivering, CHILD_STATE)

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit")]


def test_a_child_in_flight_is_cancelled_and_awaited() -> None:
    probe = SagaProbe(with_steps(Parallel(Delivering(), ReservingCredit())), OrderState())
    probe.reply(ReservingCredit, Refused(reason="limit"))
    assert probe.ordered == ["cancel"]
    assert probe.status is SagaStatus.COMPENSATING
    probe.advance(100 * HOUR)
    assert probe.status is SagaStatus.COMPENSATING

    probe.child_compensated(Delivering, CHILD_STATE)

    assert probe.status is SagaStatus.COMPENSATED


def test_a_child_that_completes_before_the_cancel_reaches_it_is_ordered_back() -> None:
    probe = SagaProbe(with_steps(Parallel(Delivering(), ReservingCredit())), OrderState())
    probe.reply(ReservingCredit, Refused(reason="limit"))
    probe.child_completed(Delivering, CHILD_STATE)
    assert probe.ordered == ["cancel", "compensate"]
    assert probe.published == []

    probe.child_compensated(Delivering, CHILD_STATE)

    assert probe.status is SagaStatus.COMPENSATED


def test_a_child_that_takes_too_long_is_cancelled_and_awaited() -> None:
    probe = SagaProbe(with_steps(variant(Delivering, timeout=MINUTE)()), OrderState())
    probe.advance(MINUTE)
    assert (probe.ordered, probe.status) == (["cancel"], SagaStatus.RUNNING)

    probe.child_compensated(Delivering, CHILD_STATE, "cancelled-by-parent")

    assert probe.first_cause is not None and probe.first_cause.code == "child-timeout"
    assert probe.status is SagaStatus.COMPENSATED


def test_an_abandoned_child_blocks_its_parent() -> None:
    probe = SagaProbe(with_steps(Delivering()), OrderState())
    probe.child_abandoned(Delivering)
    assert probe.blocked_reason is BlockedReason.CHILD_ABANDONED

    probe.resolve(Delivering, "delivered by hand")

    assert probe.status is SagaStatus.COMPLETED


def test_a_child_abandoned_on_its_way_back_blocks_its_parent_until_an_operator_skips_it() -> None:
    probe = SagaProbe(with_steps(Delivering(), ReservingCredit()), OrderState())
    probe.child_completed(Delivering, CHILD_STATE)
    probe.reply(ReservingCredit, Refused(reason="limit"))
    probe.child_abandoned(Delivering)
    assert probe.blocked_reason is BlockedReason.COMPENSATION_FAILED

    probe.skip(Delivering)

    assert probe.status is SagaStatus.COMPENSATED_WITH_EXCEPTIONS


def test_after_the_pivot_a_failed_child_blocks_and_a_retry_starts_another() -> None:
    probe = SagaProbe(with_steps(Shipping(), DeliveringLate()), OrderState())
    probe.reply(Shipping, Done())
    first = probe.instance.steps[StepKey("DeliveringLate")].awaited_key
    probe.child_compensated(DeliveringLate, CHILD_STATE)
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    probe.retry(DeliveringLate)
    record = probe.instance.steps[StepKey("DeliveringLate")]
    assert (record.round, len(probe.children)) == (2, 2)
    assert record.awaited_key != first
    probe.child_completed(DeliveringLate, CHILD_STATE)

    assert probe.status is SagaStatus.COMPLETED


def test_the_end_of_a_child_is_kept_for_a_paused_parent() -> None:
    probe = SagaProbe(with_steps(Delivering()), OrderState())
    probe.pause()
    probe.child_completed(Delivering, CHILD_STATE)
    assert probe.step_status(Delivering) is StepStatus.WAITING

    probe.resume()

    assert probe.status is SagaStatus.COMPLETED


def test_a_hook_that_raises_at_a_childs_end_blocks_and_a_retry_takes_the_end_again() -> None:
    broken = [True]

    def on_completed(self: object, state: OrderState, child: OrderState) -> None:
        if broken:
            raise KeyError("broken")

    delivering = variant(Delivering, on_completed=on_completed)
    probe = SagaProbe(with_steps(delivering()), OrderState())
    probe.child_completed(delivering, CHILD_STATE)
    assert probe.blocked_reason is BlockedReason.CODE_ERROR

    broken.clear()
    probe.retry()

    assert probe.status is SagaStatus.COMPLETED


def test_the_id_of_a_child_is_derived_so_that_it_starts_once() -> None:
    ids = {
        SagaProbe(with_steps(Delivering()), OrderState()).instance.steps[StepKey("Delivering")].awaited_key
        for _ in range(3)
    }

    assert len(ids) == 1


def pivotal() -> type[Saga[OrderState]]:
    return with_steps(Shipping())


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: with_steps(variant(Delivering, saga=None)()), "does not say which saga it starts"),
        (lambda: with_steps(variant(Delivering, saga=pivotal())()), "cannot be undone, for TestSaga has a pivot"),
        (lambda: with_steps(DeliveringLate()), "before any pivot"),
        (lambda: with_steps(Shipping(), Delivering()), "after the pivot Shipping"),
        (lambda: variant(Delivering, timeout=-HOUR), "not positive"),
    ],
)
def test_what_cannot_work_is_refused(make: Any, problem: str) -> None:
    with pytest.raises(SagaDefinitionError, match=problem):
        make()


def test_a_child_with_a_pivot_is_fine_where_nothing_is_undone() -> None:
    lasting = variant(Delivering, saga=pivotal(), nothing_to_undo=True)
    probe = SagaProbe(with_steps(lasting(), ReservingCredit()), OrderState())
    probe.child_completed(lasting, CHILD_STATE)
    probe.reply(ReservingCredit, Refused(reason="limit"))

    assert (probe.status, probe.ordered) == (SagaStatus.COMPENSATED, [])


def test_a_child_is_drawn_with_its_name() -> None:
    assert "saga shipping-orders" in graph.mermaid(with_steps(Delivering()))
