"""A travel agency for sagas that are stored and exported: with secrets, faults, an event and a pivot."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel, Field, SecretStr

from messaging import Command, Context, Event, Failure, Reply, Retry, Service
from orchestrator import ForEach, ItemStep, Orchestrator, Parallel, Saga, Step, SubSaga, WaitForEvent

SOON = timedelta(seconds=2.5)
QUICK = Retry(max_attempts=2, backoff=timedelta(milliseconds=30))


class Card(BaseModel):
    holder: str = Field(repr=False)
    pin: SecretStr = SecretStr("")


class Trip(BaseModel):
    number: str
    ends: str = "well"
    card: Card
    seat: str = ""
    policy: str = ""
    refusal: str = Field(default="", repr=False)


class Booked(Reply):
    seat: str = ""


class BookFlight(Command[Booked]):
    number: str
    ends: str
    holder: str = Field(repr=False)


class CancelFlight(Command[Booked]):
    number: str


class BookHotel(Command[Booked]):
    number: str
    ends: str


class CancelHotel(Command[Booked]):
    number: str


class SendTickets(Command[Booked]):
    seat: str


class Paid(Event):
    number: str
    by: str = Field(default="", repr=False)


class BookingFlight(Step[Trip, Booked]):
    participant = "travel"
    retry = QUICK

    def command(self, state: Trip) -> BookFlight:
        return BookFlight(number=state.number, ends=state.ends, holder=state.card.holder)

    def on_reply(self, state: Trip, reply: Booked) -> None:
        state.seat = reply.seat

    def compensation(self, state: Trip) -> CancelFlight:
        return CancelFlight(number=state.number)


class BookingHotel(Step[Trip, Booked]):
    participant = "travel"
    retry = QUICK
    timeout = SOON

    def command(self, state: Trip) -> BookHotel:
        return BookHotel(number=state.number, ends=state.ends)

    def on_failure(self, state: Trip, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: Trip) -> CancelHotel:
        return CancelHotel(number=state.number)


class AwaitingMoney(WaitForEvent[Trip, Paid]):
    timeout = 2 * SOON

    def awaited_key(self, state: Trip) -> str:
        return state.number

    def event_key(self, event: Paid) -> str:
        return event.number


class SendingTickets(Step[Trip, Booked]):
    participant = "travel"
    pivot = True

    def command(self, state: Trip) -> SendTickets:
        return SendTickets(seat=state.seat)


class BookMeal(Command[Booked]):
    day: str


class BookingMeal(ItemStep[Trip, str, Booked]):
    participant = "travel"
    nothing_to_undo = True

    def command(self, state: Trip, item: str) -> BookMeal:
        return BookMeal(day=item)


class BookingMeals(ForEach[Trip, str]):
    steps = (BookingMeal(),)

    def items(self, state: Trip) -> list[str]:
        return ["first", "last day"] if state.ends == "well" else []

    def item_key(self, item: str) -> str:
        return item


class Insurance(BaseModel):
    number: str
    holder: str = Field(repr=False)
    policy: str = ""


class Insure(Command[Booked]):
    number: str


class Uninsure(Command[Booked]):
    number: str


class WritingPolicy(Step[Insurance, Booked]):
    participant = "travel"

    def command(self, state: Insurance) -> Insure:
        return Insure(number=state.number)

    def on_reply(self, state: Insurance, reply: Booked) -> None:
        state.policy = reply.seat

    def compensation(self, state: Insurance) -> Uninsure:
        return Uninsure(number=state.number)


class InsureTrip(Saga[Insurance]):
    keep_states = True
    steps = (WritingPolicy(),)


class Insuring(SubSaga[Trip, Insurance]):
    saga = InsureTrip

    def child_state(self, state: Trip) -> Insurance:
        return Insurance(number=state.number, holder=state.card.holder)

    def on_completed(self, state: Trip, child: Insurance) -> None:
        state.policy = child.policy


class BookTrip(Saga[Trip]):
    keep_states = True
    steps = (Parallel(BookingFlight(), BookingHotel()), BookingMeals(), Insuring(), AwaitingMoney(), SendingTickets())


travel = Service("travel")
app = Orchestrator(sagas=[BookTrip])


@travel.handles(BookFlight)
async def book_flight(command: BookFlight, context: Context[None]) -> Booked:
    if (command.ends == "after a fault" and context.headers["attempt"] == 1) or command.ends == "faulty":
        raise RuntimeError("the line is busy")
    if command.ends not in ("unpaid", "cancelled"):
        context.publish(Paid(number=command.number, by="Ann Example"))
    return Booked(seat="12A")


@travel.handles(BookHotel)
async def book_hotel(command: BookHotel) -> Booked | Failure:
    return Failure(reason="full, Ann Example") if command.ends == "refused" else Booked()


@travel.handles(BookMeal)
async def book_meal(command: BookMeal) -> Booked:
    return Booked()


@travel.handles(Insure)
async def insure(command: Insure) -> Booked:
    return Booked(seat="P-1")


@travel.handles(Uninsure)
async def uninsure(command: Uninsure) -> Booked:
    return Booked()


@travel.handles(CancelFlight)
async def cancel_flight(command: CancelFlight) -> Booked:
    return Booked()


@travel.handles(CancelHotel)
async def cancel_hotel(command: CancelHotel) -> Booked:
    return Booked()


@travel.handles(SendTickets)
async def send_tickets(command: SendTickets) -> Booked:
    return Booked()
