"""The release that runs before the deployment."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from messaging import Command, Reply
from orchestrator import Orchestrator, Saga, Step


class Trip(BaseModel):
    number: int


class Booked(Reply): ...


class Book(Command[Booked]):
    number: int
    what: str


class Cancel(Command[Booked]):
    number: int
    what: str


class Booking(Step[Trip, Booked]):
    participant = "agency"
    # Longer than the test waits: a reply that is lost must not be mended by asking again.
    timeout = timedelta(minutes=10)

    def command(self, state: Trip) -> Book:
        return Book(number=state.number, what=self.name)

    def compensation(self, state: Trip) -> Cancel:
        return Cancel(number=state.number, what=self.name)


class Flight(Booking): ...


class Hotel(Booking): ...


class BookTrip(Saga[Trip]):
    name = "book-trip"
    steps = (Flight(), Hotel())


app = Orchestrator([BookTrip])
