"""A seat is held for a booking, then the ticket is sent; if it cannot be, the seat is free again."""

from __future__ import annotations

from uuid import UUID

from pydantic import BaseModel

from fastapi_app.database import Seat, Sessions
from messaging import Command, Context, Failure, Reply, Service
from orchestrator import Orchestrator, Saga, Step


class SeatHeld(Reply):
    pass


class SeatTaken(Failure):
    pass


class HoldSeat(Command[SeatHeld], failures=(SeatTaken,)):
    booking_id: UUID
    seat: str


class SeatFreed(Reply):
    pass


class FreeSeat(Command[SeatFreed]):
    seat: str


class TicketSent(Reply):
    pass


class SendTicket(Command[TicketSent]):
    guest: str
    seat: str


class BookingState(BaseModel):
    booking_id: UUID
    guest: str
    seat: str
    refusal: str = ""


class HoldingSeat(Step[BookingState, SeatHeld]):
    participant = "seats"

    def command(self, state: BookingState) -> HoldSeat:
        return HoldSeat(booking_id=state.booking_id, seat=state.seat)

    def on_failure(self, state: BookingState, failure: Failure) -> None:
        state.refusal = failure.reason

    def compensation(self, state: BookingState) -> FreeSeat:
        return FreeSeat(seat=state.seat)


class SendingTicket(Step[BookingState, TicketSent]):
    participant = "seats"
    pivot = True

    def command(self, state: BookingState) -> SendTicket:
        return SendTicket(guest=state.guest, seat=state.seat)


class BookSeatSaga(Saga[BookingState]):
    steps = (HoldingSeat(), SendingTicket())


app = Orchestrator(sagas=[BookSeatSaga])
seats = Service("seats", sessions=Sessions)


@seats.handles(HoldSeat)
async def hold_seat(command: HoldSeat, context: Context) -> SeatHeld | SeatTaken:
    if await context.session.get(Seat, command.seat) is not None:
        return SeatTaken(reason=f"seat {command.seat} is taken")
    context.session.add(Seat(name=command.seat, booking_id=command.booking_id))
    return SeatHeld()


@seats.handles(FreeSeat)
async def free_seat(command: FreeSeat, context: Context) -> SeatFreed:
    await context.session.delete(await context.session.get_one(Seat, command.seat))
    return SeatFreed()


@seats.handles(SendTicket)
async def send_ticket(command: SendTicket) -> TicketSent:
    return TicketSent()
