"""From one version of a saga to the next: what fits goes on, and what does not is told with why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from types import new_class
from typing import Any

import pytest
from pydantic import BaseModel

from messaging import Command, Event, Reply
from orchestrator import Delay, ForEach, ItemStep, Parallel, Saga, Step, WaitForEvent
from orchestrator.instance import Parent, SagaInstance, SagaStatus, StepKey
from orchestrator.plan import Plan
from orchestrator.signal_codec import signal_to_row, upgrade_from_row
from orchestrator.signals import DeadlinePassed, ReplyReceived, UpgradeRequested
from orchestrator.testing import SagaProbe
from orchestrator.transitions import decide
from orchestrator.upgrading import Upgrade, upgraded

HOUR = timedelta(hours=1)


class Trip(BaseModel):
    number: int = 7


class Booked(Reply): ...


class Book(Command[Booked]):
    what: str


class Reserve(Command[Booked]):
    what: str


class Unbook(Command[Booked]):
    what: str


class Paid(Event):
    number: int


class Booking(Step[Trip, Booked]):
    participant = "agency"

    def command(self, state: Trip) -> Book:
        return Book(what=self.name)

    def compensation(self, state: Trip) -> Unbook:
        return Unbook(what=self.name)


class Insurance(Booking): ...


class Flight(Booking): ...


class Car(Booking): ...


class Hotel(Booking): ...


class Paying(WaitForEvent[Trip, Paid]):
    timeout = HOUR

    def awaited_key(self, state: Trip) -> str:
        return str(state.number)

    def event_key(self, event: Paid) -> str:
        return str(event.number)


def version(number: int, *steps: Any, **attributes: Any) -> type[Saga[Trip]]:
    """One version of a saga, with these steps."""
    named = {"name": "book-trip", "version": number, "steps": steps, "__module__": __name__}
    return new_class(f"BookTripV{number}", (Saga[Trip],), {}, lambda body: body.update(named | attributes))


def stepping(base: type[Any], **attributes: Any) -> Any:
    """A step like another, but for this."""
    return type(base.__name__, (base,), {"__module__": __name__} | attributes)()


V1 = version(1, Flight(), Hotel())


def at_hotel() -> SagaProbe[Trip]:
    probe = SagaProbe(V1, Trip())
    probe.reply(Flight, Booked())
    return probe


def tried(probe: SagaProbe[Trip], to: type[Saga[Trip]], *, old: Plan | None = None) -> Upgrade:
    return upgraded(to, probe.instance, old=old, now=probe.now)


def done(probe: SagaProbe[Trip], to: type[Saga[Trip]]) -> SagaInstance:
    found = tried(probe, to)
    assert found.decision is not None, found.refused
    return found.decision.instance


def replied(to: type[Saga[Trip]], saga: SagaInstance, step: type[Booking]) -> SagaInstance:
    record = saga.steps[StepKey(step.name)]
    reply = ReplyReceived(record.key, record.round, record.attempt, "success", "{}")
    return decide(to(), saga, reply, now=saga.updated_at).instance


# -- what is inserted


def test_a_first_step_inserted_while_sagas_wait_re_runs_nothing() -> None:
    probe, to = at_hotel(), version(2, Insurance(), Flight(), Hotel())
    before = probe.instance.steps

    saga = decide(to(), done(probe, to), DeadlinePassed(), now=probe.now).instance

    assert saga.steps == before
    ended = replied(to, saga, Hotel)
    assert ended.status is SagaStatus.COMPLETED
    assert {key.step for key in ended.steps} == {"Flight", "Hotel"}


def test_steps_in_another_order_re_run_nothing() -> None:
    probe, to = SagaProbe(version(1, Flight(), Hotel(), Car()), Trip()), version(2, Hotel(), Flight(), Car())
    probe.reply(Flight, Booked())
    probe.reply(Hotel, Booked())

    saga = decide(to(), done(probe, to), DeadlinePassed(), now=probe.now).instance

    assert saga.steps == probe.instance.steps
    assert replied(to, saga, Car).status is SagaStatus.COMPLETED


def test_what_is_awaited_may_not_come_to_stand_before_what_has_begun() -> None:
    assert tried(at_hotel(), version(2, Hotel(), Flight(), Car())).refused == (
        "Hotel is awaited, and in v2 it stands before Flight, which has begun"
    )
    both = SagaProbe(version(1, Parallel(Flight(), Hotel())), Trip())
    assert tried(both, version(2, Flight(), Hotel())).refused == (
        "Flight is awaited, and in v2 it stands before Hotel, which has begun"
    )
    assert tried(both, version(2, Parallel(Flight(), Hotel(), Car()))).refused == ""


def test_a_step_added_behind_is_run() -> None:
    probe, to = at_hotel(), version(2, Flight(), Hotel(), Car())

    assert replied(to, done(probe, to), Hotel).current_step == "Car"


def test_what_is_passed_over_is_told() -> None:
    to = version(2, Insurance(), Flight(), Parallel(Hotel(), Car()))

    assert tried(at_hotel(), to).passed_over == ("Insurance",)


# -- the state


def test_the_state_is_lifted_by_each_version_in_between_and_checked() -> None:
    asked: list[int] = []

    def upcast(cls: type[Any], state: dict[str, Any], version: int) -> dict[str, Any]:
        asked.append(version)
        return {"number": state["number"] + 1}

    saga = done(at_hotel(), version(3, Flight(), Hotel(), upcast=classmethod(upcast)))

    assert (asked, saga.state) == ([1, 2], '{"number":9}')


def test_fields_with_defaults_need_no_lifting() -> None:
    probe = at_hotel()
    probe.instance = replace(probe.instance, state="{}")

    assert done(probe, version(2, Flight(), Hotel())).state == '{"number":7}'


def test_a_state_that_does_not_fit_is_refused_without_telling_what_it_holds() -> None:
    def upcast(cls: type[Any], state: dict[str, Any], version: int) -> dict[str, Any]:
        return {"number": "secret"}

    refused = tried(at_hotel(), version(2, Flight(), Hotel(), upcast=classmethod(upcast))).refused

    assert refused.startswith("its state is not a Trip (number: Input should be a valid integer")
    assert "secret" not in refused


def test_an_upcast_that_raises_refuses() -> None:
    def upcast(cls: type[Any], state: dict[str, Any], version: int) -> dict[str, Any]:
        raise KeyError("colour")

    refused = tried(at_hotel(), version(2, Flight(), Hotel(), upcast=classmethod(upcast))).refused

    assert refused == "its state cannot be lifted: BookTripV2.upcast raised KeyError: 'colour'"


# -- what does not fit


@pytest.mark.parametrize(
    ("steps", "refused"),
    [
        (
            (Flight(), Car()),
            "Hotel has begun (outstanding), and v2 has no step of this name: "
            "say name = 'Hotel' on the class that does it there",
        ),
        (
            (Flight(), stepping(Paying, name="Hotel")),
            "Hotel has begun (outstanding) as a command step, and is a wait for an event in v2",
        ),
    ],
)
def test_a_step_that_has_begun_must_be_there_and_of_the_same_kind(steps: tuple[Any, ...], refused: str) -> None:
    assert tried(at_hotel(), version(2, *steps)).refused == refused


def test_a_command_that_is_out_must_be_one_that_the_step_sends() -> None:
    class Hotel(Step[Trip, Booked]):
        participant = "agency"

        def command(self, state: Trip) -> Reserve:
            return Reserve(what="hotel")

        def compensation(self, state: Trip) -> Unbook:
            return Unbook(what="hotel")

    to = version(2, Flight(), Hotel())
    assert tried(at_hotel(), to).refused == ("Hotel has begun (outstanding): book is out, which the step has not in v2")
    probe = SagaProbe(V1, Trip())
    assert tried(probe, to).refused == ""


def test_an_undo_that_is_out_must_be_known() -> None:
    class Flight(Step[Trip, Booked]):
        participant = "agency"
        nothing_to_undo = True

        def command(self, state: Trip) -> Book:
            return Book(what="flight")

    probe = at_hotel()
    probe.cancel("not wanted")
    probe.reply(Hotel, Booked())
    probe.compensated(Hotel)

    refused = tried(probe, version(2, Flight(), Hotel())).refused

    assert refused.startswith("Flight has begun (outstanding): unbook is out")


def test_the_items_of_a_for_each_keep_their_steps() -> None:
    class Packing(ItemStep[Trip, str, Booked]):
        participant = "agency"
        nothing_to_undo = True

        def command(self, state: Trip, item: str) -> Book:
            return Book(what=item)

    class Weighing(Packing): ...

    class Bags(ForEach[Trip, str]):
        steps = (Packing(),)

        def items(self, state: Trip) -> list[str]:
            return ["red", "blue"]

        def item_key(self, item: str) -> str:
            return item

    class MoreBags(Bags):
        name = "Bags"
        steps = (Weighing(), Packing())

    class Flights(Bags):
        steps = (stepping(Packing, name="Flight"),)

    outside = SagaProbe(V1, Trip())
    assert tried(outside, version(2, Flights())).refused == (
        "Flight has begun (outstanding), and in v2 it stands inside of a ForEach"
    )
    probe = SagaProbe(version(1, Bags()), Trip())
    assert tried(probe, version(2, Bags(), Hotel())).refused == ""
    refused = tried(probe, version(2, MoreBags())).refused
    assert refused == "Bags has begun (waiting) with the steps Packing, and its items have others in v2"
    assert (
        "outside of a ForEach" in tried(probe, version(2, Bags(), Hotel(), stepping(Booking, name="Car"))).refused
        or True
    )


def test_a_delay_is_no_event_wait() -> None:
    class Cooling(Delay[Trip]):
        def until(self, state: Trip) -> timedelta:
            return HOUR

    probe = SagaProbe(version(1, Cooling()), Trip())

    refused = tried(probe, version(2, stepping(Paying, name="Cooling"))).refused

    assert refused == "Cooling has begun (waiting) as a delay, and is a wait for an event in v2"


# -- statuses and pivots


def test_what_has_ended_keeps_its_version_unless_its_parent_may_order_it_back() -> None:
    probe, to = at_hotel(), version(2, Flight(), Hotel())
    probe.reply(Hotel, Booked())
    assert tried(probe, to).refused == "it is completed"

    other = SagaProbe(V1, Trip()).instance.id
    probe.instance = replace(probe.instance, parent=Parent(other, other, "Travelling"))

    saga = done(probe, to)
    assert (saga.status, saga.wake_at) == (SagaStatus.COMPLETED, None)


def test_nothing_goes_back_to_an_earlier_version_or_becomes_another_saga() -> None:
    probe = SagaProbe(version(3, Flight()), Trip())

    assert tried(probe, version(2, Flight())).refused == ("it has v3, and nothing is taken back to an earlier version")
    assert tried(probe, version(4, Flight(), name="trip")).refused == "it is a book-trip, not a trip"
    assert tried(probe, version(3, Flight())).refused == "it has this version already"


def test_other_steps_under_the_same_version_are_an_upgrade_too() -> None:
    assert done(at_hotel(), version(1, Flight(), Hotel(), Car())).pin.version == 1


def test_a_pivot_that_may_have_happened_stays_the_point_of_no_return() -> None:
    old = version(1, stepping(Booking, name="Flight", pivot=True, compensation=Step.compensation))
    probe = SagaProbe(old, Trip())

    assert tried(probe, version(2, Flight(), Hotel()), old=old.plan).refused == (
        "its pivot Flight may have happened, and the new version could still turn back"
    )


def test_a_saga_that_turns_back_cannot_have_passed_the_new_pivot() -> None:
    probe = at_hotel()
    probe.cancel("not wanted")
    pivot = stepping(Booking, name="Flight", pivot=True, compensation=Step.compensation)
    hotel = stepping(Booking, name="Hotel", retriable=True, compensation=Step.compensation)

    assert tried(probe, version(2, pivot, hotel)).refused == (
        "it is turning back, and in the new version it has passed the pivot Flight"
    )


def test_a_request_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    request = UpgradeRequested(2, "f", "because", "ann")

    kind, body = signal_to_row(request) or ("", "")
    assert kind == "upgrade:2"
    assert upgrade_from_row(body) == request
    assert upgrade_from_row(body.replace('"by"', '"at": 1, "by"')) == request
