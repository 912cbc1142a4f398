"""Going forward: what is sent when, what a reply changes, and when a saga is completed."""

from __future__ import annotations

from orchestrator import SagaStatus
from orchestrator.instance import StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    ORDER,
    CreateOrder,
    CreatingOrder,
    CreditTaken,
    Done,
    GiftSaga,
    OrderPlaced,
    OrderSaga,
    OrderState,
    PackGift,
    PackingGift,
    ReserveCredit,
    ReserveStock,
    ReservingCredit,
    ReservingStock,
    StockReserved,
    variant,
    with_steps,
)


def test_a_saga_sends_its_first_command_when_it_starts() -> None:
    probe = SagaProbe(OrderSaga, OrderState())

    assert probe.just_sent == [CreateOrder(order_id=ORDER)]
    assert (probe.status, probe.current_step) == (SagaStatus.RUNNING, "CreatingOrder")


def test_the_branches_of_a_group_begin_together() -> None:
    probe = SagaProbe(OrderSaga, OrderState())

    probe.reply(CreatingOrder, Done())

    assert probe.just_sent == [
        ReserveCredit(order_id=ORDER, amount_cents=900),
        ReserveStock(order_id=ORDER),
    ]
    assert probe.current_step == "ReservingCredit, ReservingStock"


def test_a_group_is_left_only_when_each_branch_has_answered() -> None:
    probe = SagaProbe(OrderSaga, OrderState())
    probe.reply(CreatingOrder, Done())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    assert (probe.status, probe.current_step) == (SagaStatus.RUNNING, "ReservingCredit")

    probe.reply(ReservingCredit, Done())
    assert (probe.status, probe.current_step) == (SagaStatus.COMPLETED, "")
    assert probe.instance.ended_at == probe.now


def test_what_on_reply_changes_in_the_state_is_kept() -> None:
    probe = SagaProbe(OrderSaga, OrderState())
    probe.reply(CreatingOrder, Done())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.state.warehouse == "north"


def test_what_other_hooks_change_in_the_state_is_not_kept() -> None:
    def command(self: object, state: OrderState) -> CreateOrder:
        state.refusal = "scribbled"
        return CreateOrder(order_id=state.order_id)

    probe = SagaProbe(with_steps(variant(CreatingOrder, command=command)()), OrderState())

    assert probe.state == OrderState()


def test_a_step_is_skipped_when_its_condition_says_no() -> None:
    probe = SagaProbe(GiftSaga, OrderState(gift=False))
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Done())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.step_status(PackingGift) is StepStatus.SKIPPED
    assert probe.status is SagaStatus.COMPLETED


def test_a_sequence_inside_a_group_goes_on_without_its_siblings() -> None:
    probe = SagaProbe(GiftSaga, OrderState(gift=True))
    probe.reply(CreatingOrder, Done())

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.just_sent == [PackGift(order_id=ORDER)]
    assert probe.current_step == "ReservingCredit, PackingGift"


def test_a_saga_whose_steps_are_all_skipped_is_completed_at_once() -> None:
    probe = SagaProbe(with_steps(PackingGift()), OrderState(gift=False))

    assert (probe.status, probe.sent) == (SagaStatus.COMPLETED, [])


def test_events_of_a_step_and_of_the_completed_saga_are_published_once_each() -> None:
    probe = SagaProbe(OrderSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Done())
    assert probe.published == [CreditTaken(order_id=ORDER)]

    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    probe.reply(ReservingStock, StockReserved(warehouse="south"))

    assert probe.published == [CreditTaken(order_id=ORDER), OrderPlaced(order_id=ORDER)]


def test_a_repeated_reply_changes_nothing_and_is_noted() -> None:
    probe = SagaProbe(OrderSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    probe.reply(ReservingStock, StockReserved(warehouse="south"))

    assert probe.state.warehouse == "north"
    assert [note.kind for note in probe.notes] == ["duplicate"]


def test_a_reply_after_the_end_changes_nothing_and_is_noted() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.reply(CreatingOrder, Done())

    assert (probe.status, probe.just_sent) == (SagaStatus.COMPLETED, [])
    assert [note.kind for note in probe.notes] == ["late_reply"]
