"""Payments, a kitchen and couriers. Each handler is one transaction, done once."""

from __future__ import annotations

import os
from datetime import timedelta

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from food_delivery.sagas import (
    AskKitchen,
    CallOffDish,
    CardDeclined,
    CourierFound,
    Done,
    FindCourier,
    HoldMoney,
    MealHandedOver,
    NobodyFree,
    ReleaseMoney,
    SendCourierHome,
    TakeHeldMoney,
)
from messaging import Accepted, Context, Service
from messaging.sql import create_tables

engine = create_async_engine(os.environ.get("MEALS_DATABASE_URL", "sqlite+aiosqlite:///meals.db"))
Sessions = async_sessionmaker(engine)

payments = Service("payments", sessions=Sessions)
kitchen = Service("kitchen", sessions=Sessions)
couriers = Service("couriers", sessions=Sessions, publishes=[MealHandedOver])


class Base(DeclarativeBase):
    pass


class Line(Base):
    """What a service knows of a meal."""

    __tablename__ = "line"

    meal_id: Mapped[str] = mapped_column(primary_key=True)
    what: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[str]
    token: Mapped[str] = mapped_column(default="")
    """Of a dish: whoever has it may answer for the kitchen."""


async def prepare() -> None:
    """Create the tables that are missing, the inbox and outbox too."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()  # whatever uses it next may do so in another event loop


@payments.handles(HoldMoney)
async def hold_money(command: HoldMoney, context: Context) -> Done | CardDeclined:
    if command.cents > 10_000:
        return CardDeclined(reason="the card is good for 100.00")
    context.session.add(Line(meal_id=command.meal_id, what="money", status="held"))
    return Done()


@payments.handles(ReleaseMoney)
async def release_money(command: ReleaseMoney, context: Context) -> Done:
    return await change(context, command.meal_id, "money", "released")


@payments.handles(TakeHeldMoney)
async def take_held_money(command: TakeHeldMoney, context: Context) -> Done:
    return await change(context, command.meal_id, "money", "taken")


@kitchen.handles(AskKitchen)
async def ask_kitchen(command: AskKitchen, context: Context) -> Accepted:
    """Leave it to somebody in the kitchen, who has ten minutes: a page of theirs would redeem the token."""
    context.session.add(Line(meal_id=command.meal_id, what="dish", status="asked for", token=context.reply_token))
    return Accepted(within=timedelta(minutes=10))


@kitchen.handles(CallOffDish)
async def call_off_dish(command: CallOffDish, context: Context) -> Done:
    return await change(context, command.meal_id, "dish", "called off")


@couriers.handles(FindCourier)
async def find_courier(command: FindCourier, context: Context) -> CourierFound | NobodyFree:
    if command.address == "the moon":
        return NobodyFree(reason="nobody goes there")
    context.session.add(Line(meal_id=command.meal_id, what="courier", status="on the way"))
    return CourierFound(courier="Cora")


@couriers.handles(SendCourierHome)
async def send_courier_home(command: SendCourierHome, context: Context) -> Done:
    return await change(context, command.meal_id, "courier", "sent home")


async def change(context: Context, meal_id: str, what: str, status: str) -> Done:
    line = await context.session.get_one(Line, (meal_id, what))
    line.status = status
    return Done()


async def hand_over(meal_id: str) -> None:
    """The courier is at the door: their telephone would call this."""
    async with Sessions.begin() as session:
        await couriers.publish(MealHandedOver(meal_id=meal_id), session=session)
