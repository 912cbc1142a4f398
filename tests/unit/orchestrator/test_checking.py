"""What `saga check` finds in definitions that can be created, and what it leaves alone."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from messaging.messages import Command, Event, Failure, Reply
from messaging.retry import Retry
from orchestrator import Parallel, Saga, Sequence, Step, WaitForEvent
from orchestrator.checking import Finding, Level, check
from tests.unit.orchestrator import orders
from tests.unit.orchestrator.orders import (
    AwaitingPayment,
    CreatingOrder,
    Mailing,
    OrderState,
    ReservingCredit,
    ReservingStock,
    Shipping,
    variant,
)

MINUTE = timedelta(minutes=1)


class Trip(BaseModel):
    trip_id: str
    flight: str | None = None
    hotel: str = ""
    seats: list[str] = Field(default_factory=list)
    reason: str = ""

    @property
    def label(self) -> str:
        return f"{self.trip_id}/{self.flight}"


class Booked(Reply):
    reference: str


class Gone(Reply):
    pass


class FullyBooked(Failure):
    seats_left: int = 0


class BookFlight(Command[Booked]):
    trip_id: str


class CancelFlight(Command[Gone]):
    flight: str


class BookHotel(Command[Booked], failures=(FullyBooked,)):
    trip_id: str


class CancelHotel(Command[Gone]):
    trip_id: str


class CheckedIn(Event):
    flight: str


class BookingFlight(Step[Trip, Booked]):
    participant = "airline"

    def command(self, state: Trip) -> BookFlight:
        return BookFlight(trip_id=state.trip_id)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.flight = reply.reference

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.reason = failure.reason

    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(flight=state.flight or "")


class ReadingByProperty(BookingFlight):
    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(flight=state.label)


def cancel(trip: Trip) -> CancelFlight:
    return CancelFlight(flight=trip.flight or "")


class ReadingByFunction(BookingFlight):
    def compensation(self, state: Trip) -> CancelFlight:
        return cancel(state)


class SettingByMethod(BookingFlight):
    def on_reply(self, state: Trip, reply: Booked) -> None:
        self.keep(reply, state)

    def keep(self, reply: Booked, trip: Trip) -> None:
        trip.flight = reply.reference


class SettingBySuper(BookingFlight):
    def on_reply(self, state: Trip, reply: Booked) -> None:
        super().on_reply(state, reply)


class NamedBefore(BookingFlight):
    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(flight=state.trip_id)


class BookingHotel(Step[Trip, Booked]):
    participant = "hotel"

    def command(self, state: Trip) -> BookHotel:
        return BookHotel(trip_id=state.trip_id)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.hotel = reply.reference
        state.seats.append(reply.reference)

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.reason = failure.reason

    def compensation(self, state: Trip) -> CancelHotel:
        return CancelHotel(trip_id=f"{state.trip_id} {state.flight} {state.reason}")


class AwaitingCheckIn(WaitForEvent[Trip, CheckedIn]):
    timeout = MINUTE

    def awaited_key(self, state: Trip) -> str:
        return state.flight or ""

    def event_key(self, event: CheckedIn) -> str:
        return event.flight


def trip(*steps: object, **settings: object) -> type[Saga[Trip]]:
    return orders.with_steps(*steps, base=Saga[Trip], **settings)  # type: ignore[return-value]


def only(*sagas: type[Saga[Trip]]) -> Finding:
    (found,) = check(sagas)
    return found


def rules(*sagas: type[Saga[Trip]] | type[Saga[orders.OrderState]]) -> list[str]:
    return [found.rule for found in check(sagas)]


# -- read too early


def test_a_compensation_that_needs_the_steps_own_reply_is_an_error_at_its_line() -> None:
    found = only(trip(BookingFlight()))

    assert (found.level, found.rule, found.saga, found.subject) == (
        Level.ERROR,
        "own-answer",
        "test v1",
        "BookingFlight",
    )
    assert found.text == (
        "compensation() reads state.flight, which only this step's own answer sets: "
        "it is None when no answer came, and the step is to be undone all the same"
    )
    assert "chosen before the step runs" in found.remedy
    line = Path(found.file).read_text(encoding="utf-8").splitlines()[found.line - 1]
    assert line.strip() == 'return CancelFlight(flight=state.flight or "")'


def test_reads_and_assignments_are_followed_through_properties_functions_and_methods() -> None:
    for step in (ReadingByProperty, ReadingByFunction, SettingByMethod, SettingBySuper):
        assert only(trip(step())).rule == "own-answer", step


def test_a_compensation_may_read_what_was_known_before_its_step() -> None:
    assert check([trip(NamedBefore())]) == []
    assert check([trip(NamedBefore(), BookingHotel())]) == []


def test_a_compensation_that_reads_what_a_later_step_sets_is_a_warning() -> None:
    found = only(trip(BookingHotel(), NamedBefore()))

    assert (found.level, found.rule) == (Level.WARNING, "set-later")
    assert "state.flight, which only NamedBefore sets: it is None, unless" in found.text


def test_a_branch_does_not_know_what_its_siblings_learn() -> None:
    assert only(trip(Parallel(BookingHotel(), NamedBefore()))).rule == "set-later"


def test_every_compensation_may_read_why_the_saga_turned_back() -> None:
    assert check([trip(NamedBefore(), BookingHotel())]) == []


def test_what_the_saga_starts_with_is_known_though_a_reply_sets_it_again() -> None:
    class SettingTheId(NamedBefore):
        def on_reply(self, state: Trip, reply: Booked) -> None:
            state.trip_id = reply.reference

    assert check([trip(SettingTheId())]) == []


def test_a_wait_for_a_key_that_only_a_later_step_learns_is_an_error() -> None:
    found = only(trip(AwaitingCheckIn(), NamedBefore()))

    assert (found.level, found.subject) == (Level.ERROR, "AwaitingCheckIn")
    assert "awaited_key() reads state.flight" in found.text
    assert check([trip(NamedBefore(), AwaitingCheckIn())]) == []


def test_a_hook_that_hides_what_it_sets_is_not_guessed_at() -> None:
    class Hiding(NamedBefore):
        def on_reply(self, state: Trip, reply: Booked) -> None:
            same = state
            same.flight = reply.reference

    assert check([trip(Hiding(), BookingHotel())]) == []


# -- answers


def test_declared_failures_without_on_failure_are_a_warning_and_unread_replies_are_advice() -> None:
    class Deaf(Step[Trip, Booked]):
        participant = "hotel"
        nothing_to_undo = True

        def command(self, state: Trip) -> BookHotel:
            return BookHotel(trip_id=state.trip_id)

    found = check([trip(Deaf())])

    assert [(one.level, one.rule) for one in found] == [
        (Level.WARNING, "unhandled-failure"),
        (Level.ADVICE, "unread-reply"),
    ]
    assert "FullyBooked" in found[0].text and "Booked says: reference" in found[1].text


# -- names


class OtherHotel(Command[Booked], name="book-hotel"):
    pass


class BookingOtherHotel(BookingHotel):
    nothing_to_undo = False

    def command(self, state: Trip) -> OtherHotel:  # type: ignore[override]
        return OtherHotel()


def test_two_commands_of_one_name_to_one_participant_are_an_error() -> None:
    found = only(trip(NamedBefore(), BookingHotel(), BookingOtherHotel()))

    assert (found.level, found.rule, found.subject) == (Level.ERROR, "wire-name", "OtherHotel")
    assert "'book-hotel'" in found.text and "'hotel' reads one as the other" in found.text


def test_two_commands_of_one_name_to_two_participants_are_a_warning() -> None:
    other = variant(BookingOtherHotel, participant="motel")

    assert only(trip(NamedBefore(), BookingHotel(), other())).level is Level.WARNING


def test_two_versions_of_a_saga_may_have_two_classes_of_one_message() -> None:
    first, second = trip(NamedBefore(), BookingHotel()), trip(NamedBefore(), BookingOtherHotel(), version=2)

    assert check([first, second]) == []


# -- policies


def test_an_undo_at_a_participant_that_does_not_dedupe_is_a_warning() -> None:
    assert rules(orders.with_steps(variant(CreatingOrder, participant_dedupes=False)())) == ["no-dedupe"]
    once = {"participant_dedupes": False, "retry": Retry(max_attempts=1)}
    assert rules(orders.with_steps(variant(Shipping, participant_dedupes=False)())) == ["no-dedupe"]
    assert rules(orders.with_steps(variant(Shipping, **once)())) == []


def test_attempts_without_end_make_on_exhausted_void_and_hold_a_saga_without_deadline() -> None:
    endless = variant(CreatingOrder, retry=Retry(max_attempts=None))
    void = variant(endless, on_exhausted="block")

    assert rules(orders.with_steps(endless())) == ["endless"]
    assert rules(orders.with_steps(endless(), deadline=MINUTE)) == []
    assert rules(orders.with_steps(void(), deadline=MINUTE)) == ["on-exhausted"]
    after_pivot = variant(Mailing, retry=Retry(max_attempts=None))
    assert rules(orders.with_steps(CreatingOrder(), Shipping(), after_pivot())) == []


def test_attempts_that_take_longer_than_the_saga_has_are_a_warning() -> None:
    slow = variant(CreatingOrder, timeout=MINUTE, retry=Retry(max_attempts=10**9))
    (found,) = check([orders.with_steps(slow(), deadline=5 * MINUTE)])

    assert found.rule == "deadline"
    assert "attempts of 1 min each take longer than the saga's deadline, 5 min" in found.text
    assert rules(orders.with_steps(variant(slow, retry=Retry(max_attempts=3))(), deadline=5 * MINUTE)) == []


def test_a_wait_that_is_longer_than_the_saga_is_a_warning() -> None:
    assert rules(orders.with_steps(AwaitingPayment(), deadline=MINUTE)) == ["deadline"]


def test_compensate_on_a_wait_after_the_pivot_is_a_warning_if_it_is_written() -> None:
    said = variant(AwaitingPayment, on_timeout="compensate")

    assert rules(orders.with_steps(CreatingOrder(), Shipping(), said())) == ["on-timeout"]
    assert rules(orders.with_steps(CreatingOrder(), Shipping(), AwaitingPayment())) == []


# -- as a whole


def test_the_worst_comes_first_and_sound_sagas_are_left_alone() -> None:
    assert check([orders.OrderSaga, orders.GiftSaga, orders.ShippingSaga, orders.PaymentSaga]) == []
    found = check([trip(BookingHotel(), BookingFlight())])
    assert [one.level for one in found] == [Level.ERROR, Level.WARNING]


def test_a_hundred_sagas_are_checked_in_under_a_second() -> None:
    sagas = [orders.with_steps(CreatingOrder(), ReservingCredit(), name=f"saga-{n}") for n in range(100)]

    began = time.process_time()
    check(sagas)
    assert time.process_time() - began < 1


# -- locks


class LockingAccount(ReservingStock):
    """Its locks are named `account:...`; what a docstring says is no name."""

    lock_timeout = MINUTE

    def locks(self, state: OrderState) -> list[str]:
        """Hold "an account"."""
        return [f"account:{state.order_id}"]


class LockingStock(CreatingOrder):
    lock_timeout = MINUTE

    def locks(self, state: OrderState) -> list[str]:
        return ["stock"]


def in_order(name: str, *steps: Any) -> type[Saga[OrderState]]:
    return type(name, (orders.with_steps(*steps),), {"name": name})


def test_locks_that_two_sagas_take_in_conflicting_order_are_a_warning() -> None:
    one = in_order("one", LockingAccount(), LockingStock())
    other = in_order("other", Sequence(LockingStock()), LockingAccount())

    (found,) = [finding for finding in check([one, other]) if finding.rule == "lock-order"]

    assert (found.level, found.subject) == (Level.WARNING, "LockingStock")
    assert "takes a lock on 'stock' after one on 'account:'; LockingAccount of other takes them the other" in found.text


def test_locks_in_one_order_or_taken_at_once_are_no_conflict() -> None:
    one, same = (in_order(name, LockingAccount(), LockingStock()) for name in ("one", "same"))
    at_once = in_order("at-once", Parallel(LockingStock(), LockingAccount()))

    assert [finding for finding in check([one, same, at_once]) if finding.rule == "lock-order"] == []
