"""The release that is deployed: a second version with two steps more, beside the first for what is in flight."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Event, Reply
from orchestrator import Orchestrator, Saga, Step, WaitForEvent


class Trip(BaseModel):
    number: int
    insured: bool = False


class Booked(Reply): ...


class Book(Command[Booked]):
    number: int
    what: str


class Cancel(Command[Booked]):
    number: int
    what: str


class TripPaid(Event):
    number: int


class Booking(Step[Trip, Booked]):
    participant = "agency"
    timeout = timedelta(minutes=10)

    def command(self, state: Trip) -> Book:
        return Book(number=state.number, what=self.name)

    def compensation(self, state: Trip) -> Cancel:
        return Cancel(number=state.number, what=self.name)


class Insurance(Booking):
    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.insured = True


class Flight(Booking): ...


class Hotel(Booking): ...


class AwaitingPayment(WaitForEvent[Trip, TripPaid]):
    timeout = timedelta(minutes=10)

    def awaited_key(self, state: Trip) -> str:
        return str(state.number)

    def event_key(self, event: TripPaid) -> str:
        return str(event.number)


class BookTripV1(Saga[Trip]):
    name = "book-trip"
    steps = (Flight(), Hotel())


class BookTrip(Saga[Trip]):
    name = "book-trip"
    version = 2
    steps = (Insurance(), Flight(), AwaitingPayment(), Hotel())


app = Orchestrator([BookTripV1, BookTrip])
