"""Groups that let every branch run to its own end before the saga turns back."""

from __future__ import annotations

from orchestrator import Parallel, SagaStatus, Sequence
from orchestrator.instance import StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    ORDER,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderState,
    PackingGift,
    Refused,
    RejectOrder,
    ReleaseStock,
    ReservingCredit,
    ReservingStock,
    StockReserved,
    with_steps,
)


def settling(*others: object) -> SagaProbe[OrderState]:
    """A refused credit beside a reservation, which others follow."""
    group = Parallel(ReservingCredit(), Sequence(ReservingStock(), *others), settle_all=True)  # type: ignore[arg-type]
    probe = SagaProbe(with_steps(group), OrderState())
    probe.reply(ReservingCredit, Refused(reason="limit"))
    return probe


def test_the_other_branches_run_to_their_end_before_the_saga_turns_back() -> None:
    probe = settling(CreatingOrder())
    assert probe.status is SagaStatus.RUNNING

    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    assert probe.just_sent == [CreateOrder(order_id=ORDER)]

    probe.reply(CreatingOrder, Done())
    assert (probe.status, probe.just_sent) == (
        SagaStatus.COMPENSATING,
        [RejectOrder(order_id=ORDER, reason="limit")],
    )
    assert probe.first_cause is not None and probe.first_cause.step == "ReservingCredit"


def test_a_last_step_that_is_skipped_ends_its_branch() -> None:
    probe = settling(PackingGift())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.step_status(PackingGift) is StepStatus.SKIPPED
    assert (probe.status, probe.just_sent) == (SagaStatus.COMPENSATING, [ReleaseStock(order_id=ORDER)])


def test_a_cancel_does_not_wait_for_the_other_branches() -> None:
    probe = settling(CreatingOrder())

    probe.cancel("no longer wanted")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.just_sent == [ReleaseStock(order_id=ORDER)]
