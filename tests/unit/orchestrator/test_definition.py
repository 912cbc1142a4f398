"""Definitions that cannot work are refused when the class is created, with the class and the remedy."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from pydantic import BaseModel

from messaging.messages import Command, Reply
from orchestrator import Parallel, Saga, SagaDefinitionError, Sequence, StartOnEvent, Step, WaitForEvent
from orchestrator.plan import CommandLeaf, EventLeaf
from tests.unit.orchestrator.orders import (
    AwaitingPayment,
    CreateOrder,
    CreatingOrder,
    Done,
    Mailing,
    OrderState,
    PackingGift,
    PaymentCaptured,
    ReleaseStock,
    ReserveCredit,
    ReserveStock,
    ReservingCredit,
    ReservingStock,
    Shipping,
    StockReserved,
    variant,
    with_steps,
)

if TYPE_CHECKING:
    from decimal import Decimal

R = TypeVar("R", bound=Reply)


class OtherState(BaseModel):
    pass


def refused(make: Callable[[], object]) -> str:
    with pytest.raises(SagaDefinitionError) as caught:
        make()
    return str(caught.value)


# -- one step


def test_a_step_name_that_rows_cannot_hold_is_refused() -> None:
    text = refused(lambda: variant(CreatingOrder, name="creating order"))

    assert text == (
        "step CreatingOrder has the name 'creating order'. Use 1 to 64 of the characters A-Z a-z 0-9 _ . -."
    )


def test_a_step_is_not_pivot_and_retriable() -> None:
    assert "is both pivot and retriable" in refused(lambda: variant(Shipping, retriable=True))


@pytest.mark.parametrize("role", ["pivot", "retriable"])
def test_nothing_is_undone_at_or_after_the_pivot(role: str) -> None:
    text = refused(lambda: variant(CreatingOrder, **{role: True}))

    assert text.startswith("step CreatingOrder defines compensation(), but nothing is undone at or after the pivot")


def test_a_pivot_or_retriable_step_cannot_compensate_when_exhausted() -> None:
    expected = 'cannot have on_exhausted = "compensate" at or after the pivot. It blocks; remove the line.'
    assert expected in refused(lambda: variant(Shipping, on_exhausted="compensate"))
    assert expected in refused(lambda: variant(Mailing, on_exhausted="compensate"))
    base = variant(Odd, on_exhausted="compensate")
    assert expected in refused(lambda: variant(base, pivot=True))


def test_a_step_with_a_compensation_does_not_say_that_there_is_nothing_to_undo() -> None:
    assert "says nothing_to_undo and defines compensation" in refused(
        lambda: variant(CreatingOrder, nothing_to_undo=True)
    )


@pytest.mark.parametrize(
    ("step", "settings", "problem"),
    [
        (CreatingOrder, {"timeout": 30}, "has timeout = 30. Write a timedelta, such as timedelta(seconds=30)"),
        (CreatingOrder, {"timeout": None}, "has timeout = None. Write a timedelta"),
        (CreatingOrder, {"compensation_timeout": timedelta(0)}, "has a compensation_timeout that is not positive"),
        (CreatingOrder, {"retry": 3}, "has retry = 3. Write a policy, such as Retry(max_attempts=3)"),
        (CreatingOrder, {"on_exhausted": "stop"}, "has on_exhausted = 'stop'. Use one of: compensate, block"),
        (AwaitingPayment, {"timeout": 30}, "has timeout = 30. Write a timedelta"),
        (AwaitingPayment, {"timeout": timedelta(-1)}, "has a timeout that is not positive"),
        (AwaitingPayment, {"on_timeout": "retry"}, "has on_timeout = 'retry'. Use one of: compensate, continue, block"),
    ],
)
def test_settings_of_the_wrong_kind_are_refused(step: type[Any], settings: dict[str, Any], problem: str) -> None:
    assert refused(lambda: variant(step, **settings)).startswith(f"step {step.__name__} {problem}")


@pytest.mark.parametrize("hook", ["command", "on_reply", "when", "compensation", "events", "on_failure"])
def test_an_async_hook_is_refused_since_it_would_never_run(hook: str) -> None:
    async def asleep(*_: object) -> None: ...

    text = refused(lambda: variant(CreatingOrder, **{hook: asleep}))

    assert f"has an async {hook}(). Hooks only look at the state: write a plain def" in text


# -- a saga


def test_a_step_listed_twice_is_refused() -> None:
    text = refused(lambda: with_steps(CreatingOrder(), CreatingOrder()))

    assert text == (
        "step CreatingOrder of saga 'test' is listed twice. State belongs to names: give one of them another."
    )


def test_two_steps_of_one_name_are_refused_wherever_they_stand() -> None:
    namesake = variant(ReservingStock, name="CreatingOrder")

    assert "is listed twice" in refused(
        lambda: with_steps(CreatingOrder(), Parallel(ReservingCredit(), Sequence(namesake())))
    )


def test_two_pivots_are_refused() -> None:
    second = variant(Shipping, name="ShippingToo")

    text = refused(lambda: with_steps(Shipping(), second()))

    assert "step ShippingToo of saga 'test' is a second pivot, after Shipping" in text


@pytest.mark.parametrize("group", [Parallel, Sequence])
def test_a_pivot_inside_a_group_is_refused(group: Any) -> None:
    assert "is a pivot inside a group" in refused(lambda: with_steps(group(Shipping())))


def test_a_compensatable_step_after_the_pivot_is_refused() -> None:
    text = refused(lambda: with_steps(Shipping(), Parallel(CreatingOrder(), Mailing())))

    assert "comes after the pivot Shipping and cannot be undone there. Set retriable = True, or move it" in text


def test_a_retriable_step_before_the_pivot_is_refused() -> None:
    assert "is retriable but comes before any pivot" in refused(lambda: with_steps(Mailing(), Shipping()))


class Odd(Step[OrderState, Done]):
    participant = "orders"

    def command(self, state: OrderState) -> CreateOrder:
        return CreateOrder(order_id=state.order_id)


def test_a_step_that_says_nothing_about_undoing_it_is_refused() -> None:
    text = refused(lambda: with_steps(Odd()))

    assert "says nothing about undoing it. Define compensation(), or set nothing_to_undo = True" in text


def test_a_step_without_a_participant_is_refused() -> None:
    text = refused(lambda: with_steps(variant(CreatingOrder, participant="")()))

    assert text == (
        "step CreatingOrder of saga 'test' has no participant. Set participant = \"<queue name>\" on the class."
    )


def test_a_step_of_another_state_is_refused() -> None:
    class Stranger(Step[OtherState, Done]):
        participant = "orders"
        nothing_to_undo = True

        def command(self, state: OtherState) -> CreateOrder: ...  # type: ignore[empty-body]

    assert "works on OtherState, but the saga's state is OrderState" in refused(lambda: with_steps(Stranger()))


def test_a_step_without_its_types_is_refused() -> None:
    class Untyped(Step):  # type: ignore[type-arg]
        participant = "orders"
        nothing_to_undo = True

        def command(self, state: Any) -> CreateOrder: ...  # type: ignore[empty-body]

    text = refused(lambda: with_steps(Untyped()))

    assert "does not say its types. Write class Untyped(Step[OrderState, Reply])" in text


def test_steps_may_have_a_generic_base_of_ones_own() -> None:
    class OrderStep(Step[OrderState, R]):
        participant = "orders"
        nothing_to_undo = True

    class PatientStep(OrderStep[R]):
        timeout = timedelta(seconds=3)

    class Reserving(PatientStep[StockReserved]):
        def command(self, state: OrderState) -> ReserveStock:
            return ReserveStock(order_id=state.order_id)

    saga = with_steps(Reserving())

    leaf = saga.plan.leaves["Reserving"]
    assert isinstance(leaf, CommandLeaf)
    assert leaf.reply is StockReserved


def test_a_command_with_another_reply_than_the_steps_is_refused() -> None:
    class Mismatched(Step[OrderState, StockReserved]):
        participant = "customers"
        nothing_to_undo = True

        def command(self, state: OrderState) -> ReserveCredit: ...  # type: ignore

    text = refused(lambda: with_steps(Mismatched()))

    assert "sends ReserveCredit, which is answered with Done, but awaits StockReserved" in text
    assert text.endswith("Write Step[OrderState, Done].")


class Nameless(Step[OrderState, Done]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state: OrderState) -> Command[Done]: ...  # type: ignore[empty-body]


class Unannotated(Step[OrderState, Done]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state):  # type: ignore  # noqa: ANN001, ANN201
        return CreateOrder(order_id=state.order_id)


@pytest.mark.parametrize("step", [Nameless, Unannotated])
def test_a_command_whose_annotation_names_no_message_is_refused(step: type[Step[OrderState, Done]]) -> None:
    text = refused(lambda: with_steps(step()))

    assert "has a command() that does not name its command. Annotate it: def command(...) -> TheCommand" in text


def test_an_annotation_that_cannot_be_read_is_refused() -> None:
    class Hidden(Command[Done]):
        pass

    class AskingHidden(Step[OrderState, Done]):
        participant = "orders"
        nothing_to_undo = True

        def command(self, state: OrderState) -> Hidden:
            return Hidden()

    assert "return annotation cannot be read (name 'Hidden' is not defined)" in refused(
        lambda: with_steps(AskingHidden())
    )


class TypedApart(Step[OrderState, Done]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state: OrderState, factor: Decimal | None = None) -> CreateOrder:
        return CreateOrder(order_id=state.order_id)


def test_other_annotations_may_name_what_only_type_checkers_import() -> None:
    assert with_steps(TypedApart()).plan.leaves["TypedApart"].position == 0


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    assert "lists the class CreatingOrder. List an instance: CreatingOrder()" in refused(
        lambda: with_steps(CreatingOrder)
    )


def test_what_is_no_step_is_refused() -> None:
    assert "lists 'create', which is no step" in refused(lambda: with_steps("create"))


def test_an_empty_group_is_refused() -> None:
    assert "has an empty Parallel. Give it steps, or remove it" in refused(lambda: with_steps(Parallel()))


def test_a_forgotten_comma_is_refused() -> None:
    def make() -> object:
        class Lonely(Saga[OrderState]):
            steps = CreatingOrder()  # type: ignore

        return Lonely

    assert "Write steps = (FirstStep(), ...), with a comma even after one" in refused(make)


def test_a_saga_without_its_state_is_refused() -> None:
    def make() -> object:
        class Stateless(Saga):  # type: ignore[type-arg]
            steps = (CreatingOrder(),)

        return Stateless

    assert "does not say its state. Write class Stateless(Saga[State])" in refused(make)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"name": "a saga"}, "has an unusable name"),
        ({"deadline": 60}, "has deadline = 60. Write a timedelta"),
        ({"alarm_after": 60}, "has alarm_after = 60. Write a timedelta"),
        ({"alarm_after": timedelta(0)}, "has an alarm_after that is not positive"),
        ({"on_compensation_failure": "ignore"}, "Use one of: block, continue_others"),
        ({"keep_states": "yes"}, "has keep_states = 'yes'. Write True or False"),
    ],
)
def test_settings_of_a_saga_are_checked(settings: dict[str, Any], problem: str) -> None:
    assert problem in refused(lambda: with_steps(CreatingOrder(), **settings))


# -- waits


def test_a_wait_that_nothing_bounds_is_refused() -> None:
    endless = variant(AwaitingPayment, timeout=None)

    assert "waits without bound. Set timeout on it, or deadline on the saga" in refused(lambda: with_steps(endless()))
    with_steps(endless(), deadline=timedelta(hours=1))


def test_a_wait_after_the_pivot_needs_a_timeout_of_its_own() -> None:
    endless = variant(AwaitingPayment, timeout=None)

    assert "comes after the pivot, where no saga deadline ends it" in refused(
        lambda: with_steps(Shipping(), endless(), deadline=timedelta(hours=1))
    )


def test_a_wait_defines_both_keys_or_neither() -> None:
    class HalfKeyed(WaitForEvent[OrderState, PaymentCaptured]):
        timeout = timedelta(hours=1)

        def event_key(self, event: PaymentCaptured) -> str:
            return str(event.order_id)

    assert "defines one of awaited_key and event_key" in refused(lambda: with_steps(HalfKeyed()))


# -- what is compiled


class OrderFlow(Saga[OrderState]):
    steps = (CreatingOrder(), Parallel(ReservingCredit(), Sequence(ReservingStock(), PackingGift())), Shipping())


def test_a_saga_is_named_after_its_class_unless_it_says_otherwise() -> None:
    assert OrderFlow.name == "order-flow"
    assert with_steps(CreatingOrder(), name="create-order").name == "create-order"


def test_the_plan_knows_each_step_with_its_messages() -> None:
    leaf = OrderFlow.plan.leaves["ReservingStock"]

    assert isinstance(leaf, CommandLeaf)
    assert (leaf.commands, leaf.compensations, leaf.reply) == ((ReserveStock,), (ReleaseStock,), StockReserved)
    assert (OrderFlow.plan.pivot, leaf.after_pivot) == ("Shipping", False)
    assert list(OrderFlow.plan.leaves) == [
        "CreatingOrder",
        "ReservingCredit",
        "ReservingStock",
        "PackingGift",
        "Shipping",
    ]


def test_a_wait_after_the_pivot_knows_that_it_is() -> None:
    leaf = with_steps(Shipping(), AwaitingPayment()).plan.leaves["AwaitingPayment"]

    assert isinstance(leaf, EventLeaf)
    assert leaf.after_pivot


def test_the_fingerprint_covers_names_nesting_and_roles_and_not_timeouts_or_participants() -> None:
    fingerprint = OrderFlow.plan.fingerprint
    patient = variant(CreatingOrder, timeout=timedelta(hours=1), participant="others")
    renamed = variant(CreatingOrder, name="Creating")
    group = OrderFlow.steps[1]

    assert fingerprint == "2cca3c3a10a3be7f"
    assert with_steps(patient(), group, Shipping(), alarm_after=timedelta(hours=1)).plan.fingerprint == fingerprint
    assert with_steps(CreatingOrder(), group, Shipping(), keep_states=True).plan.fingerprint == fingerprint
    assert with_steps(renamed(), group, Shipping()).plan.fingerprint != fingerprint
    assert with_steps(CreatingOrder(), Sequence(group), Shipping()).plan.fingerprint != fingerprint
    assert with_steps(CreatingOrder(), group).plan.fingerprint != fingerprint


def test_error_texts_end_with_one_full_stop() -> None:
    text = refused(lambda: with_steps(Odd()))

    assert re.search(r"[^.]\.$", text)


# -- starting by event


class OnPayment(StartOnEvent[OrderState, PaymentCaptured]):
    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)

    def state(self, event: PaymentCaptured) -> OrderState:
        return OrderState(order_id=event.order_id)


class OfAnotherState(StartOnEvent[OtherState, PaymentCaptured]):
    def event_key(self, event: PaymentCaptured) -> str:
        return str(event.order_id)

    def state(self, event: PaymentCaptured) -> OtherState:
        return OtherState()


def started_by(starts_on: Any) -> type[Saga[OrderState]]:
    class Test(Saga[OrderState]):
        name = "test"
        steps = (CreatingOrder(),)

    return type("Test", (Test,), {"name": "test", "starts_on": starts_on})


def test_a_saga_that_an_event_starts_knows_the_event_and_its_fingerprint_does_not() -> None:
    saga = started_by((OnPayment(),))

    assert [start.event for start in saga.plan.starts] == [PaymentCaptured]
    assert saga.plan.fingerprint == started_by(()).plan.fingerprint


@pytest.mark.parametrize(
    ("starts_on", "problem"),
    [
        (OnPayment(), "has starts_on that is no tuple"),
        ((OnPayment,), "lists the class OnPayment in starts_on. List an instance: OnPayment()"),
        ((CreatingOrder(),), "in starts_on, which is no StartOnEvent"),
        ((OnPayment(), OnPayment()), "starts on event 'payment-captured' twice"),
        ((OfAnotherState(),), "OfAnotherState makes OtherState, but the state of saga 'test' (Test) is OrderState"),
    ],
)
def test_a_start_by_event_that_cannot_work_is_refused(starts_on: Any, problem: str) -> None:
    assert problem in refused(lambda: started_by(starts_on))
