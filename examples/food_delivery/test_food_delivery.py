"""What becomes of a meal."""

from __future__ import annotations

from datetime import timedelta

from food_delivery.sagas import (
    AskingKitchen,
    AskKitchen,
    BringingMeal,
    CallOffDish,
    CourierFound,
    DeliverMeal,
    Done,
    FindCourier,
    FindingCourier,
    HoldMoney,
    KitchenDeclined,
    Meal,
    MealHandedOver,
    NobodyFree,
    ReleaseMoney,
    SendCourierHome,
    TakeHeldMoney,
    TakingMoney,
)
from messaging import Accepted, Failure, Reply
from orchestrator import SagaStatus
from orchestrator.testing import FakeParticipant, SagaHarness, Seen, explore

SOUP = Meal(meal_id="1", dish="soup", address="Elm Street 3", cents=900)
HANDED_OVER = MealHandedOver(meal_id="1")


def a_good_evening() -> tuple[SagaHarness, FakeParticipant, FakeParticipant, FakeParticipant]:
    harness = SagaHarness(DeliverMeal)
    payments, kitchen, couriers = (harness.participant(name) for name in ("payments", "kitchen", "couriers"))
    payments.on(HoldMoney, ReleaseMoney, TakeHeldMoney).answers(Done())
    kitchen.on(AskKitchen).answers(Accepted(within=timedelta(minutes=10)))
    kitchen.on(CallOffDish).answers(Done())
    couriers.on(FindCourier).answers(CourierFound(courier="Cora"))
    couriers.on(SendCourierHome).answers(Done())
    return harness, payments, kitchen, couriers


async def test_a_meal_that_is_accepted_and_handed_over_is_paid() -> None:
    harness, payments, _, _ = a_good_evening()
    meal = await harness.start(DeliverMeal, SOUP)
    await harness.advance(minutes=9)
    assert meal.current_step == "AskingKitchen"

    await meal.complete(AskingKitchen, Done())
    assert meal.current_step == "BringingMeal"
    await harness.publish(HANDED_OVER)

    assert (meal.status, meal.state.courier) == (SagaStatus.COMPLETED, "Cora")
    assert payments.received == [HoldMoney(meal_id="1", cents=900), TakeHeldMoney(meal_id="1")]


async def test_a_kitchen_that_says_nothing_for_ten_minutes_has_said_no() -> None:
    harness, payments, kitchen, couriers = a_good_evening()
    meal = await harness.start(DeliverMeal, SOUP)

    await harness.advance(minutes=10)

    assert meal.status is SagaStatus.COMPENSATED
    assert kitchen.received[-1] == CallOffDish(meal_id="1")
    assert payments.received[-1] == ReleaseMoney(meal_id="1")
    assert couriers.received == []


async def test_a_kitchen_that_says_no_has_nothing_to_call_off() -> None:
    harness, payments, kitchen, _ = a_good_evening()
    meal = await harness.start(DeliverMeal, SOUP)

    await meal.complete(AskingKitchen, KitchenDeclined(reason="no leeks left"))

    assert (meal.status, meal.state.refusal) == (SagaStatus.COMPENSATED, "no leeks left")
    assert kitchen.received == [AskKitchen(meal_id="1", dish="soup")]
    assert payments.received[-1] == ReleaseMoney(meal_id="1")


async def test_when_nobody_can_bring_it_the_money_is_released() -> None:
    harness, payments, _, couriers = a_good_evening()
    couriers.on(FindCourier).answers(NobodyFree(reason="it rains"))
    meal = await harness.start(DeliverMeal, SOUP)

    await meal.complete(AskingKitchen, Done())

    assert (meal.status, meal.state.refusal) == (SagaStatus.COMPENSATED, "it rains")
    assert payments.received[-1] == ReleaseMoney(meal_id="1")


async def test_a_meal_cancelled_on_its_way_comes_back_before_the_money_does() -> None:
    harness, payments, _, couriers = a_good_evening()
    meal = await harness.start(DeliverMeal, SOUP)
    await meal.complete(AskingKitchen, Done())

    await meal.ask("cancel", reason="gone to bed")

    assert meal.status is SagaStatus.COMPENSATED
    assert couriers.received[-1] == SendCourierHome(meal_id="1")
    assert payments.received[-1] == ReleaseMoney(meal_id="1")


def nobody_pays_for_a_meal_that_is_not_brought(seen: Seen[Meal]) -> bool:
    rides = seen.children(BringingMeal)
    return not seen.in_effect(TakingMoney) or rides[-1].status is SagaStatus.COMPLETED


def no_courier_is_sent_before_the_kitchen_has_said_yes(seen: Seen[Meal]) -> bool:
    rides = seen.children(BringingMeal)
    return seen.in_effect(AskingKitchen) or not any(ride.in_effect(FindingCourier) for ride in rides)


def test_nobody_pays_for_what_is_not_cooked_and_brought_whatever_happens() -> None:
    in_the_end: list[Reply | Failure | Accepted] = [Done(), KitchenDeclined(reason="no leeks left")]
    report = explore(
        DeliverMeal,
        SOUP,
        answers={AskingKitchen: [Accepted(within=timedelta(minutes=10)), *in_the_end]},
        invariants=[nobody_pays_for_a_meal_that_is_not_brought, no_courier_is_sent_before_the_kitchen_has_said_yes],
        max_refusals=1,
        max_delays=0,
        max_duplicates=0,
    )
    print(report)
