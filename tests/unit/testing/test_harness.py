"""The harness: the whole engine in a test, with participants in a line each and time moved by hand."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from orchestrator import BlockedReason, ForEach, ItemStep, LocalStep, Retry, Saga, SagaStatus, SubSaga
from orchestrator.errors import ActionRefused
from orchestrator.instance import StepStatus
from orchestrator.testing import SagaHarness
from tests.support.programs import ROOT
from tests.unit.orchestrator.orders import (
    HOUR,
    ORDER,
    AwaitingPayment,
    CreateOrder,
    CreatingOrder,
    CreditTaken,
    Done,
    OrderPlaced,
    OrderSaga,
    OrderState,
    OrderUndone,
    PaymentCaptured,
    PaymentSaga,
    Refused,
    RejectOrder,
    ReleaseCredit,
    ReleaseStock,
    ReserveCredit,
    ReserveStock,
    ReservingCredit,
    SendMail,
    ShippingSaga,
    StockReserved,
    variant,
    with_steps,
)

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


@pytest.fixture
def harness() -> SagaHarness:
    """Everybody does what he is told."""
    harness = SagaHarness(OrderSaga, PaymentSaga)
    orders, customers, warehouse = map(harness.participant, ("orders", "customers", "warehouse"))
    orders.on(CreateOrder).answers(Done())
    orders.on(RejectOrder).answers(Done())
    customers.on(ReserveCredit).answers(Done())
    customers.on(ReleaseCredit).answers(Done())
    warehouse.on(ReserveStock).answers(StockReserved(warehouse="north"))
    warehouse.on(ReleaseStock).answers(Done())
    return harness


async def test_a_saga_runs_to_its_end_at_once_when_everybody_answers(harness: SagaHarness) -> None:
    order = await harness.start(OrderSaga, OrderState())

    assert order.status is SagaStatus.COMPLETED
    assert order.state.warehouse == "north"
    assert harness.participant("orders").received == [CreateOrder(order_id=ORDER)]
    assert harness.published(OrderPlaced) == [OrderPlaced(order_id=ORDER)]
    assert harness.published(CreditTaken) == [CreditTaken(order_id=ORDER)]


async def test_a_refusal_undoes_what_was_done(harness: SagaHarness) -> None:
    harness.participant("customers").on(ReserveCredit).answers(Refused(reason="limit reached", available_cents=7))
    order = await harness.start(OrderSaga, OrderState())

    assert order.status is SagaStatus.COMPENSATED
    assert order.first_cause is not None and order.first_cause.text == "limit reached"
    assert harness.participant("warehouse").received[-1] == ReleaseStock(order_id=ORDER)
    assert harness.published(OrderUndone) == [OrderUndone(order_id=ORDER)]


async def test_a_fault_is_tried_again_after_its_backoff_and_not_before(harness: SagaHarness) -> None:
    harness.participant("orders").on(CreateOrder).raises("database away", times=1)
    order = await harness.start(OrderSaga, OrderState())
    assert order.current_step == "CreatingOrder"

    await harness.advance(timedelta(milliseconds=900))
    assert order.current_step == "CreatingOrder"
    await harness.advance(seconds=1)
    assert order.status is SagaStatus.COMPLETED


async def test_silence_is_a_timeout_and_the_undo_bars_what_may_come_late(harness: SagaHarness) -> None:
    harness.participant("customers").on(ReserveCredit).stays_silent()
    order = await harness.start(OrderSaga, OrderState())
    await harness.advance(hours=1)

    assert order.status is SagaStatus.COMPENSATED
    assert order.step_status(ReservingCredit) is StepStatus.UNKNOWN
    asked = ReserveCredit(order_id=ORDER, amount_cents=900)
    assert harness.participant("customers").received == [asked, asked, ReleaseCredit(order_id=ORDER)]


async def test_an_answer_that_takes_longer_than_the_timeout_still_counts(harness: SagaHarness) -> None:
    harness.participant("customers").on(ReserveCredit).answers(Done(), after=timedelta(seconds=90))
    order = await harness.start(OrderSaga, OrderState())

    await harness.advance(seconds=89)
    assert order.status is SagaStatus.RUNNING
    await harness.advance(seconds=1)
    assert order.status is SagaStatus.COMPLETED
    assert len(harness.participant("customers").received) == 2


async def test_events_come_from_the_test_or_with_an_answer(harness: SagaHarness) -> None:
    waiting = await harness.start(PaymentSaga, OrderState())
    assert waiting.step_status(AwaitingPayment) is StepStatus.WAITING
    await harness.publish(PaymentCaptured(order_id=ORDER, cents=900))
    assert (waiting.status, waiting.state.paid_cents) == (SagaStatus.COMPLETED, 900)

    paid = PaymentCaptured(order_id=ORDER, cents=901)
    harness.participant("orders").on(CreateOrder).answers(Done(), publishes=[paid])
    other = await harness.start(PaymentSaga, OrderState())
    assert (other.status, other.state.paid_cents) == (SagaStatus.COMPLETED, 901)


async def test_an_event_that_does_not_come_is_waited_for_as_long_as_it_says(harness: SagaHarness) -> None:
    order = await harness.start(PaymentSaga, OrderState())
    await harness.advance(HOUR - timedelta(seconds=1))
    assert order.status is SagaStatus.RUNNING
    await harness.advance(seconds=1)
    assert order.status is SagaStatus.COMPENSATED
    assert harness.clock.instant == order.instance.ended_at


async def test_operators_act_and_are_refused(harness: SagaHarness) -> None:
    order = await harness.start(PaymentSaga, OrderState())
    with pytest.raises(ActionRefused, match="not blocked"):
        await order.ask("retry")
    await order.ask("pause")
    await harness.advance(days=1)
    assert order.status is SagaStatus.RUNNING
    await order.ask("resume")
    await order.ask("cancel", "no longer wanted")
    assert order.status is SagaStatus.COMPENSATED


async def test_a_blocked_saga_goes_on_when_it_is_retried(harness: SagaHarness) -> None:
    harness = SagaHarness(Blocking)
    orders = harness.participant("orders").on(CreateOrder)
    orders.raises()
    order = await harness.start(Blocking, OrderState())
    await harness.advance(hours=1)
    assert order.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    orders.answers(Done())
    await order.ask("retry", "mended")
    assert order.status is SagaStatus.COMPLETED


Blocking = with_steps(variant(CreatingOrder, on_exhausted="block", retry=Retry(max_attempts=1))())


async def test_a_command_that_nothing_was_said_about_is_told() -> None:
    harness = SagaHarness(OrderSaga)
    with pytest.raises(
        AssertionError, match=r"participant 'orders' got 'create-order'.*harness.participant\('orders'\)"
    ):
        await harness.start(OrderSaga, OrderState())


async def test_a_participant_that_no_step_has_is_told() -> None:
    with pytest.raises(AssertionError, match=r"no step has the participant 'payments'.*'warehouse'"):
        SagaHarness(ShippingSaga).participant("payments")


async def test_a_business_key_starts_one_saga(harness: SagaHarness) -> None:
    one, two = [await harness.start(OrderSaga, OrderState(), key="42") for _ in range(2)]
    assert one.id == two.id
    assert len(harness.participant("orders").received) == 1


class CreatingOrderAlone(CreatingOrder):
    lock_timeout = HOUR

    def locks(self, state: OrderState) -> list[str]:
        return ["ledger"]


async def test_a_saga_waits_for_what_another_holds_and_goes_on_when_it_is_free() -> None:
    saga = with_steps(CreatingOrderAlone())
    harness = SagaHarness(saga)
    harness.participant("orders").on(CreateOrder).answers(Done(), after=timedelta(seconds=10))
    first, second = await harness.start(saga, OrderState()), await harness.start(saga, OrderState())
    assert second.step_status(CreatingOrderAlone) is StepStatus.WAITING

    await harness.advance(seconds=10)
    assert (first.status, second.status) == (SagaStatus.COMPLETED, SagaStatus.RUNNING)
    assert second.step_status(CreatingOrderAlone) is StepStatus.OUTSTANDING


async def test_items_children_and_functions_of_the_authors_are_run_too() -> None:
    harness = SagaHarness(SendingLettersOfAnOrder)
    harness.participant("mailer").on(SendMail).answers(Done())
    harness.participant("orders").on(CreateOrder).answers(Done())
    order = await harness.start(SendingLettersOfAnOrder, OrderState())

    assert order.status is SagaStatus.COMPLETED
    assert order.state.log == ["counted"]
    assert len(harness.participant("mailer").received) == 3


class Counting(LocalStep[OrderState]):
    nothing_to_undo = True

    async def run(self, state: OrderState, session: AsyncSession) -> None:
        state.log = [*state.log, "counted"]


class Child(Saga[OrderState]):
    steps = (CreatingOrder(),)


class HavingItCreated(SubSaga[OrderState, OrderState]):
    saga = Child

    def child_state(self, state: OrderState) -> OrderState:
        return OrderState(order_id=state.order_id)


class SendingOne(ItemStep[OrderState, str, Done]):
    participant = "mailer"
    nothing_to_undo = True

    def command(self, state: OrderState, item: str) -> SendMail:
        return SendMail(order_id=state.order_id)


class SendingLetters(ForEach[OrderState, str]):
    steps = (SendingOne(),)

    def items(self, state: OrderState) -> list[str]:
        return ["a", "b", "c"]

    def item_key(self, item: str) -> str:
        return item


class SendingLettersOfAnOrder(Saga[OrderState]):
    steps = (Counting(), HavingItCreated(), SendingLetters())


# -- the plugin


PLUGIN = ("-p", "no:sagasmith", "-p", "orchestrator.pytest_plugin", "-p", "no:cacheprovider")
TESTS = """
from tests.unit.orchestrator.orders import CreateOrder, CreatingOrder, Done, OrderState, RejectOrder, with_steps

Saga = with_steps(CreatingOrder())

def test_explored(explore_saga):
    assert explore_saga(Saga, OrderState(), max_faults=0).complete

async def test_harness(saga_harness):
    harness = saga_harness(Saga)
    harness.participant("orders").on(CreateOrder).answers(Done())
    assert (await harness.start(Saga, OrderState())).status == "completed"
"""


def test_the_plugin_brings_its_fixtures_and_shows_what_was_explored(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS)
    said = pytested(tmp_path, "-o", "asyncio_mode=auto")
    assert "2 passed" in said
    assert "sagas explored" in said
    assert "everything within the bounds was seen" in said


def test_the_plugin_imports_nothing_of_ours_until_it_is_used(tmp_path: Path) -> None:
    heavy = ("orchestrator.testing", "orchestrator.definition", "sqlalchemy", "pydantic")
    (tmp_path / "test_it.py").write_text(
        f"import sys\ndef test_nothing():\n    assert not [one for one in {heavy} if one in sys.modules]\n"
    )
    assert "1 passed" in pytested(tmp_path)


def pytested(folder: Path, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", "-q", *PLUGIN, *options, "test_it.py"]
    done = subprocess.run(
        command, cwd=folder, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stdout + done.stderr
