"""`explore` finds each mistake that is planted, tells it briefly, and finds nothing in what is right."""

from __future__ import annotations

import importlib
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from messaging.messages import Accepted, Command, Reply
from orchestrator import ForEach, ItemStep, Parallel, Saga, SagaStatus, Step
from orchestrator.testing import NotExplorable, RuleBroken, Seen, explore, replay
from orchestrator.testing.samples import sample
from tests.support.programs import ROOT
from tests.unit.orchestrator.orders import (
    AwaitingPayment,
    CreatingOrder,
    Mailing,
    OrderState,
    PaymentCaptured,
    ReleaseStock,
    ReserveStock,
    ReservingCredit,
    ReservingStock,
    Shipping,
    StockReserved,
    variant,
    with_steps,
)
from tests.unit.orchestrator.test_locks import OrderLocked
from tests.unit.testing import planted

PATIENCE = 900
"""However slow the machine is."""


class InSequence(Saga[OrderState]):
    steps = (CreatingOrder(), ReservingCredit(), ReservingStock())


class JustOne(Saga[OrderState]):
    steps = (CreatingOrder(),)


class InAGroup(Saga[OrderState]):
    steps = (CreatingOrder(), Parallel(ReservingCredit(), ReservingStock()))

    def on_compensated(self, state: OrderState) -> list[PaymentCaptured]:
        return [PaymentCaptured(order_id=state.order_id)]


class ReservingOne(ItemStep[OrderState, str, StockReserved]):
    participant = "warehouse"

    def command(self, state: OrderState, item: str) -> ReserveStock:
        return ReserveStock(order_id=state.order_id)

    def compensation(self, state: OrderState, item: str) -> ReleaseStock:
        return ReleaseStock(order_id=state.order_id)


class ReservingEach(ForEach[OrderState, str]):
    steps = (ReservingOne(),)

    def items(self, state: OrderState) -> list[str]:
        return ["lamp", "chair"]

    def item_key(self, item: str) -> str:
        return item


class WithItems(Saga[OrderState]):
    steps = (CreatingOrder(), ReservingEach())


class WithAWait(Saga[OrderState]):
    steps = (CreatingOrder(), AwaitingPayment())


class ToThePivot(Saga[OrderState]):
    steps = (CreatingOrder(), Shipping(), Mailing())


class WithLocks(Saga[OrderState]):
    steps = (OrderLocked(), ReservingStock())


FINDS: list[tuple[planted.Plant, type[Saga[OrderState]], str]] = [
    (planted.forgets_the_undo_of_what_timed_out, InSequence, "CreatingOrder is undone before ReservingCredit"),
    (planted.undoes_what_was_refused, InSequence, "is undone though it is refused"),
    (planted.undoes_in_the_order_of_doing, InSequence, "CreatingOrder is undone before ReservingCredit"),
    (planted.undoes_before_what_is_out_is_settled, JustOne, "CreatingOrder is still outstanding"),
    (planted.turns_back_when_the_pivot_is_unknown, ToThePivot, "turned back though its pivot Shipping is unknown"),
    (planted.leaves_a_group_too_early, InAGroup, "CreatingOrder is still outstanding"),
    (planted.forgets_the_undo_of_what_timed_out, WithItems, "CreatingOrder is undone before ReservingOne"),
    (planted.undoes_what_was_refused, WithItems, "is undone though it is refused"),
    (planted.counts_an_item_as_done_before_it_is, WithItems, "is still outstanding"),
    (planted.counts_an_item_as_undone_before_it_is, WithItems, "CreatingOrder is undone before ReservingOne"),
    (planted.counts_late_faults, JustOne, "though attempt 2 is not settled"),
    (planted.counts_a_copy_of_an_answer_for_a_sibling, InAGroup, "completed, but ReservingCredit has not happened"),
    (planted.takes_a_late_success_for_the_undo, InSequence, "CreatingOrder has happened and is not undone"),
    (planted.tries_for_ever, InSequence, "is tried 3 times, its policy allows 2"),
    (planted.never_wakes_up_for_a_deadline, InSequence, "is running with wake_at None"),
    (planted.goes_on_forward_while_going_back, InSequence, "was begun though the saga had turned back"),
    (planted.ends_without_waiting_for_undos, InSequence, "the undo of CreatingOrder is still outstanding"),
    (planted.acks_before_the_commit, InSequence, "acked before its effect was committed"),
    (planted.publishes_before_the_commit, InSequence, "no committed row knows its message id"),
    (planted.writes_the_outbox_outside_the_transaction, InAGroup, "although their transaction was not committed"),
    (planted.gives_a_message_a_new_id_when_it_is_sent_again, InSequence, "no committed row knows its message id"),
    (planted.gives_each_attempt_a_key_of_its_own, InSequence, "it would be done twice"),
    (planted.takes_what_it_has_claimed_for_sent, InSequence, "ran out of time though it never left"),
    (planted.misses_events_that_came_before_the_wait, WithAWait, "would go on for ever"),
    (planted.keeps_its_locks_for_ever, WithLocks, "still has ledger"),
    (planted.begins_without_waiting_for_its_locks, WithLocks, "was begun without its locks"),
    (planted.forgets_answers_to_later_attempts_of_undos, InSequence, "was answered with success and is outstanding"),
]


FAULTS = {planted.counts_late_faults: 2}


@pytest.mark.parametrize(
    ("plant", "saga", "rule"), FINDS, ids=[f"{plant.__name__}-{saga.__name__}" for plant, saga, _ in FINDS]
)
def test_a_planted_mistake_of_the_engine_is_found_and_its_story_replays_it(
    plant: planted.Plant, saga: type[Saga[OrderState]], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(RuleBroken) as found:
        explore(saga, OrderState(), max_faults=FAULTS.get(plant, 1), max_seconds=PATIENCE)
    assert rule in found.value.rule

    with pytest.raises(RuleBroken) as again:
        replay(saga, OrderState(), found.value.story)
    assert rule in again.value.rule

    monkeypatch.undo()
    replay(saga, OrderState(), found.value.story)


@pytest.mark.parametrize("saga", [InSequence, WithAWait, WithLocks])
def test_without_a_planted_mistake_nothing_is_found(saga: type[Saga[OrderState]]) -> None:
    report = explore(saga, OrderState(), max_seconds=PATIENCE)
    print(report)
    assert report.complete
    assert "within the bounds was seen" in str(report)


# -- mistakes of a saga's author


class NeedsTheReply(ReservingStock):
    """Undone by what only its reply tells."""

    def compensation(self, state: OrderState) -> ReleaseStock | None:
        return ReleaseStock(order_id=state.order_id) if state.warehouse else None


class Raises(ReservingStock):
    def compensation(self, state: OrderState) -> ReleaseStock:
        return ReleaseStock(order_id=UUID(state.warehouse))


ShipsUnpaid = variant(AwaitingPayment, on_timeout="continue")
Forgetful = variant(ReservingCredit, participant_dedupes=False)


def only_paid_orders_are_shipped(seen: Seen[OrderState]) -> None:
    assert not seen.in_effect(Shipping) or seen.state.paid_cents, "shipped and not paid"


def stock_is_released_once(seen: Seen[OrderState]) -> bool:
    return sum(isinstance(command, ReleaseStock) for command in seen.sent) <= 1


@pytest.mark.parametrize(
    ("saga", "rule"),
    [
        (with_steps(NeedsTheReply(), ReservingCredit()), "NeedsTheReply has happened and is not undone"),
        (with_steps(Raises(), ReservingCredit()), r"compensation\(\) of Raises raised ValueError"),
        (with_steps(Forgetful(), ReservingStock()), "ReservingCredit has happened and is not undone"),
        (with_steps(CreatingOrder(), ShipsUnpaid(), Shipping()), "only_paid_orders_are_shipped does not hold: shipped"),
        (with_steps(ReservingStock(), ReservingCredit()), "stock_is_released_once does not hold"),
    ],
)
def test_mistakes_of_a_definition_are_found(saga: type[Saga[OrderState]], rule: str) -> None:
    checks = [only_paid_orders_are_shipped, stock_is_released_once]
    with pytest.raises(RuleBroken, match=rule):
        explore(saga, OrderState(), invariants=checks)


# -- what it tells


def test_the_story_is_the_shortest_and_reads_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    planted.undoes_what_was_refused(monkeypatch)
    with pytest.raises(RuleBroken) as found:
        explore(InSequence, OrderState())
    assert found.value.story.splitlines() == [
        "  1. the engine looks for what is due",
        "    -> CreateOrder is sent to orders",
        "  2. orders refuses CreateOrder: failure",
        "  3. the engine takes the answer of orders to CreateOrder: failure",
        "    -> RejectOrder is sent to orders",
        "    -> the saga is compensating",
    ]


def test_the_test_that_is_printed_runs_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {ReservingStock: [StockReserved(warehouse="north")]}
    planted.forgets_the_undo_of_what_timed_out(monkeypatch)
    with pytest.raises(RuleBroken) as found:
        explore(InSequence, OrderState(), answers=answers, invariants=[stock_is_released_once])
    printed: dict[str, Any] = {}
    exec(compile(found.value.test, "printed", "exec"), printed)  # noqa: S102 - what users paste into a file

    with pytest.raises(RuleBroken, match="is undone before"):
        printed["test_InSequence_as_it_was_explored"]()
    monkeypatch.undo()
    printed["test_InSequence_as_it_was_explored"]()


def test_a_search_that_is_cut_off_says_so() -> None:
    report = explore(InSequence, OrderState(), max_states=50)
    assert not report.complete
    assert "CUT OFF by max_states=50: not all was seen" in str(report)


def test_the_same_saga_is_explored_the_same_way_each_time() -> None:
    one, two = (explore(JustOne, OrderState()) for _ in range(2))
    assert (one.states, one.transitions, one.paths, one.ends) == (two.states, two.transitions, two.paths, two.ends)


def test_every_end_of_a_saga_is_reached() -> None:
    assert set(explore(ToThePivot, OrderState()).ends) == {
        "completed",
        "compensated",
        "blocked: pivot_unknown",
        "blocked: retries_exhausted",
        "blocked: compensation_failed",
    }


def test_operators_may_ask_for_anything() -> None:
    report = explore(JustOne, OrderState(), operators=("pause", "resume", "abandon", "skip", "resolve", "compensate"))
    assert report.complete
    assert report.ends[SagaStatus.ABANDONED]


class Odd(Reply):
    what: type


class Ask(Command[Odd]):
    pass


class Asking(Step[OrderState, Odd]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state: OrderState) -> Ask:
        return Ask()


def test_an_answer_that_cannot_be_made_up_is_asked_for() -> None:
    with pytest.raises(NotExplorable, match=r"nothing can be made up for Odd.what.*answers="):
        explore(with_steps(Asking()), OrderState())


def test_an_event_whose_key_is_not_known_from_the_start_is_asked_for() -> None:
    unknown = variant(AwaitingPayment, awaited_key=lambda self, state: f"payment-{state.warehouse}")
    with pytest.raises(NotExplorable, match=r"awaits the key 'payment-'.*events="):
        explore(with_steps(CreatingOrder(), unknown()), OrderState())


# -- what is shipped


SHIPPED: list[tuple[str, str, dict[str, Any]]] = [
    ("orchestrator.demo.saga", "CreateOrderSaga", {"max_refusals": 1, "max_duplicates": 0}),
    ("create_order.sagas", "CreateOrderSaga", {"max_refusals": 1, "max_delays": 0, "max_duplicates": 0}),
    ("fastapi_app.sagas", "", {}),
    ("node_participant.sagas", "", {}),
]


def shipped(module: str, name: str) -> tuple[type[Saga[Any]], Any]:
    found = importlib.import_module(module)
    sagas = [cls for cls in vars(found).values() if isinstance(cls, type) and issubclass(cls, Saga) and cls.steps]
    saga = getattr(found, name) if name else sagas[-1]
    return saga, sample(saga.state_type)


def answered_by_tokens(module: str) -> dict[Any, Any]:
    """What people in the kitchen say, within ten minutes."""
    if not module.startswith("food_delivery"):
        return {}
    meals = importlib.import_module(module)
    answers = [Accepted(within=timedelta(minutes=10)), meals.Done(), meals.KitchenDeclined(reason="no leeks left")]
    return {meals.AskingKitchen: answers}


@pytest.mark.parametrize(("module", "name", "bounds"), SHIPPED)
def test_the_shipped_sagas_keep_the_rules(
    module: str, name: str, bounds: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    report = explore(*shipped(module, name), max_seconds=PATIENCE, **bounds)
    print(report)
    assert report.complete


EXPLORED_WITH_LESS_BY_THEIR_OWN_TESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("travel_booking.sagas", "BookTrip", {}),
    ("food_delivery.sagas", "DeliverMeal", {}),
]


@pytest.mark.torture
@pytest.mark.parametrize(("module", "name", "bounds"), [*SHIPPED, *EXPLORED_WITH_LESS_BY_THEIR_OWN_TESTS])
@pytest.mark.parametrize("faults", [1, 2])
def test_the_shipped_sagas_keep_the_rules_when_more_goes_wrong(
    module: str, name: str, bounds: object, faults: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    answers = answered_by_tokens(module)
    report = explore(
        *shipped(module, name), answers=answers, max_faults=faults, max_states=1_000_000, max_seconds=PATIENCE
    )
    print(report)
    assert report.complete or faults == 2, "one fault is always explored to the end"
