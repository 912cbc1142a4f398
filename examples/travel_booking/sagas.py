"""A flight, a hotel and a car are booked together; the traveller has a day to think better of it; then it is paid."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Failure, Reply
from orchestrator import Delay, Parallel, Saga, Step


class Booked(Reply):
    reference: str


class SoldOut(Failure):
    pass


class Done(Reply):
    pass


class BookFlight(Command[Booked], failures=(SoldOut,)):
    trip_id: str
    to: str


class BookHotel(Command[Booked], failures=(SoldOut,)):
    trip_id: str
    city: str


class RentCar(Command[Booked], failures=(SoldOut,)):
    trip_id: str
    city: str


class CancelFlight(Command[Done]):
    trip_id: str


class CancelHotel(Command[Done]):
    trip_id: str


class ReturnCar(Command[Done]):
    trip_id: str


class TakePayment(Command[Done]):
    trip_id: str


class Trip(BaseModel):
    trip_id: str  # chosen by whoever starts the saga: every booking is known by it, whatever becomes of the answers
    to: str
    hours_to_think: float = 24
    flight: str = ""
    hotel: str = ""
    car: str = ""
    refusal: str = ""


class BookingFlight(Step[Trip, Booked]):
    participant = "flights"

    def command(self, state: Trip) -> BookFlight:
        return BookFlight(trip_id=state.trip_id, to=state.to)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.flight = reply.reference

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(trip_id=state.trip_id)


class BookingHotel(Step[Trip, Booked]):
    participant = "hotels"

    def command(self, state: Trip) -> BookHotel:
        return BookHotel(trip_id=state.trip_id, city=state.to)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.hotel = reply.reference

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Trip) -> CancelHotel:
        return CancelHotel(trip_id=state.trip_id)


class RentingCar(Step[Trip, Booked]):
    participant = "cars"

    def command(self, state: Trip) -> RentCar:
        return RentCar(trip_id=state.trip_id, city=state.to)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.car = reply.reference

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Trip) -> ReturnCar:
        return ReturnCar(trip_id=state.trip_id)


class ThinkingBetter(Delay[Trip]):
    """Until then `saga cancel` undoes all three."""

    def until(self, state: Trip) -> timedelta:
        return timedelta(hours=state.hours_to_think)


class TakingPayment(Step[Trip, Done]):
    participant = "payments"
    pivot = True

    def command(self, state: Trip) -> TakePayment:
        return TakePayment(trip_id=state.trip_id)

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.refusal = failure.reason


class BookTrip(Saga[Trip]):
    steps = (Parallel(BookingFlight(), BookingHotel(), RentingCar()), ThinkingBetter(), TakingPayment())
