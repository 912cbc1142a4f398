"""A meal is paid for in advance, accepted by a person in the kitchen, and brought by a courier; or the money goes back.

Bringing it is a saga of its own: found a courier, picked up, handed over.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Event, Failure, Reply, Retry
from orchestrator import Saga, Step, SubSaga, WaitForEvent


class Done(Reply):
    pass


class CardDeclined(Failure):
    pass


class NobodyFree(Failure):
    pass


class KitchenDeclined(Failure):
    pass


class CourierFound(Reply):
    courier: str


class HoldMoney(Command[Done], failures=(CardDeclined,)):
    meal_id: str
    cents: int


class ReleaseMoney(Command[Done]):
    meal_id: str


class TakeHeldMoney(Command[Done]):
    meal_id: str


class AskKitchen(Command[Done], failures=(KitchenDeclined,)):
    """Answered by somebody in the kitchen, with the reply token."""

    meal_id: str
    dish: str


class CallOffDish(Command[Done]):
    meal_id: str


class FindCourier(Command[CourierFound], failures=(NobodyFree,)):
    meal_id: str
    address: str


class SendCourierHome(Command[Done]):
    meal_id: str


class MealHandedOver(Event):
    meal_id: str


# -- bringing it


class Ride(BaseModel):
    meal_id: str
    address: str
    courier: str = ""
    refusal: str = ""


class FindingCourier(Step[Ride, CourierFound]):
    participant = "couriers"

    def command(self, state: Ride) -> FindCourier:
        return FindCourier(meal_id=state.meal_id, address=state.address)

    def on_reply(self, state: Ride, reply: CourierFound) -> None:
        state.courier = reply.courier

    def on_failure(self, state: Ride, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Ride) -> SendCourierHome:
        return SendCourierHome(meal_id=state.meal_id)


class AwaitingHandOver(WaitForEvent[Ride, MealHandedOver]):
    timeout = timedelta(hours=1)

    def awaited_key(self, state: Ride) -> str:
        return state.meal_id

    def event_key(self, event: MealHandedOver) -> str:
        return event.meal_id


class BringMeal(Saga[Ride]):
    steps = (FindingCourier(), AwaitingHandOver())


# -- the meal


class Meal(BaseModel):
    meal_id: str
    dish: str
    address: str
    cents: int
    courier: str = ""
    refusal: str = ""


class HoldingMoney(Step[Meal, Done]):
    participant = "payments"

    def command(self, state: Meal) -> HoldMoney:
        return HoldMoney(meal_id=state.meal_id, cents=state.cents)

    def on_failure(self, state: Meal, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Meal) -> ReleaseMoney:
        return ReleaseMoney(meal_id=state.meal_id)


class AskingKitchen(Step[Meal, Done]):
    """A person decides. One who has said nothing when the kitchen's time is up is not asked again."""

    participant = "kitchen"
    retry = Retry(max_attempts=1)

    def command(self, state: Meal) -> AskKitchen:
        return AskKitchen(meal_id=state.meal_id, dish=state.dish)

    def on_failure(self, state: Meal, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Meal) -> CallOffDish:
        return CallOffDish(meal_id=state.meal_id)


class BringingMeal(SubSaga[Meal, Ride]):
    saga = BringMeal

    def child_state(self, state: Meal) -> Ride:
        return Ride(meal_id=state.meal_id, address=state.address)

    def on_completed(self, state: Meal, child: Ride) -> None:
        state.courier = child.courier

    def on_compensated(self, state: Meal, child: Ride) -> None:
        state.refusal = child.refusal or "it was not handed over"


class TakingMoney(Step[Meal, Done]):
    participant = "payments"
    pivot = True

    def command(self, state: Meal) -> TakeHeldMoney:
        return TakeHeldMoney(meal_id=state.meal_id)


class DeliverMeal(Saga[Meal]):
    deadline = timedelta(hours=2)
    steps = (HoldingMoney(), AskingKitchen(), BringingMeal(), TakingMoney())
