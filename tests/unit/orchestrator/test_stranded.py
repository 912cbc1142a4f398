"""Which sagas in flight a deployment would leave without their definition."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.checking import stranded
from orchestrator.instance import Pin, SagaStatus
from orchestrator.registry import pin_of
from orchestrator.sql.in_flight import InFlight
from tests.unit.orchestrator.orders import AwaitingPayment, CreatingOrder, OrderSaga, with_steps

WAITING = InFlight(pin_of(OrderSaga), SagaStatus.RUNNING, "ReservingCredit", 412)


def test_sagas_whose_definition_is_here_are_left_alone() -> None:
    assert list(stranded([WAITING], [OrderSaga])) == []


def test_sagas_of_a_version_that_is_gone_are_counted_by_step() -> None:
    second = with_steps(CreatingOrder(), name="order", version=2)
    (found,) = stranded([WAITING], [second])

    assert found.text == "412 of order v1 wait at ReservingCredit, which this code does not have: it has v2 only"
    assert found.remedy == "Register v1 beside v2 until they have ended"


def test_steps_that_changed_without_a_new_version_strand_sagas_too() -> None:
    changed = with_steps(CreatingOrder(), AwaitingPayment(), name="order")
    (found,) = stranded([WAITING], [changed])

    assert found.text.endswith("it has other steps or messages under this version")
    assert found.remedy.startswith("Raise the version")


def test_one_saga_is_told_as_one_and_a_blocked_one_as_blocked() -> None:
    gone = replace(WAITING, pin=Pin("refund", 3, "0"), count=1)
    blocked = replace(gone, status=SagaStatus.BLOCKED, count=2)
    texts = [found.text for found in stranded([gone, blocked, replace(gone, current_step="")], [OrderSaga])]

    assert [text.partition(",")[0] for text in texts] == [
        "1 of refund v3 waits at ReservingCredit",
        "2 of refund v3 are blocked at ReservingCredit",
        "1 of refund v3 has not begun",
    ]
