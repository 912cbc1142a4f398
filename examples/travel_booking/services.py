"""Four services, which share a database to keep this small. Each handler is one transaction, done once."""

from __future__ import annotations

import os

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import Context, Service
from messaging.sql import create_tables
from travel_booking.sagas import (
    Booked,
    BookFlight,
    BookHotel,
    CancelFlight,
    CancelHotel,
    Done,
    RentCar,
    ReturnCar,
    SoldOut,
    TakePayment,
)

engine = create_async_engine(os.environ.get("TRAVEL_DATABASE_URL", "sqlite+aiosqlite:///travel.db"))
Sessions = async_sessionmaker(engine)

flights = Service("flights", sessions=Sessions)
hotels = Service("hotels", sessions=Sessions)
cars = Service("cars", sessions=Sessions)
payments = Service("payments", sessions=Sessions)


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "booking"

    trip_id: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]


async def prepare() -> None:
    """Create the tables that are missing, the inbox too."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()  # whatever uses it next may do so in another event loop


@flights.handles(BookFlight)
async def book_flight(command: BookFlight, context: Context) -> Booked:
    return book(context, command.trip_id, "flight")


@hotels.handles(BookHotel)
async def book_hotel(command: BookHotel, context: Context) -> Booked | SoldOut:
    if command.city == "Atlantis":
        return SoldOut(reason="every hotel in Atlantis is under water")
    return book(context, command.trip_id, "hotel")


@cars.handles(RentCar)
async def rent_car(command: RentCar, context: Context) -> Booked:
    return book(context, command.trip_id, "car")


@payments.handles(TakePayment)
async def take_payment(command: TakePayment, context: Context) -> Done:
    book(context, command.trip_id, "payment")
    return Done()


@flights.handles(CancelFlight)
async def cancel_flight(command: CancelFlight, context: Context) -> Done:
    return await cancel(context, command.trip_id, "flight")


@hotels.handles(CancelHotel)
async def cancel_hotel(command: CancelHotel, context: Context) -> Done:
    return await cancel(context, command.trip_id, "hotel")


@cars.handles(ReturnCar)
async def return_car(command: ReturnCar, context: Context) -> Done:
    return await cancel(context, command.trip_id, "car")


def book(context: Context, trip_id: str, what: str) -> Booked:
    context.session.add(Booking(trip_id=trip_id, what=what, status="booked"))
    return Booked(reference=f"{what}-{trip_id}")


async def cancel(context: Context, trip_id: str, what: str) -> Done:
    """A cancellation comes only where there is a booking: one that never happened is answered before it gets here."""
    booking = await context.session.get_one(Booking, (trip_id, what))
    booking.status = "cancelled"
    return Done()
