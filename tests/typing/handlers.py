"""Handlers as users write them: right ones pass, each wrong one is refused where the comment stands."""
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true, reportUntypedFunctionDecorator=false
# pyright: reportUnusedFunction=false

import sqlite3
from datetime import timedelta
from typing import assert_type

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from messaging import Accepted, Bus, Command, CommandHandler, Context, Event, EventHandler, Failure, Reply, Service


class Charged(Reply):
    charge: str = ""


class Refunded(Reply):
    refund: str = ""


class CardRefused(Failure):
    limit_cents: int = 0


class Charge(Command[Charged], failures=(CardRefused,)):
    cents: int


class Refund(Command[Refunded]):
    refund_of: str


class Paid(Event):
    cents: int


service = Service("payments")


@service.handles(Charge)
async def right(command: Charge) -> Charged | CardRefused:
    return Charged()


@service.handles(Charge)
async def right_with_session(command: Charge, context: Context) -> Charged | Failure:
    assert_type(context.session, AsyncSession)
    await context.publish(Paid(cents=1))
    return CardRefused()


@service.handles(Charge)
def right_and_blocking(command: Charge, context: Context[Session]) -> Charged:
    assert_type(context.session, Session)
    context.send(Charge(cents=1), to="payments")
    return Charged()


@service.handles(Charge)
async def right_later(command: Charge, context: Context[None]) -> Charged | Accepted:
    assert_type(context.reply_token, str)
    context.accept(within=timedelta(minutes=5))
    return Accepted(within=timedelta(hours=48))


@service.handles(Charge)  # type: ignore[arg-type]
async def wrong_reply_later(command: Charge) -> Refunded | Accepted:
    return Accepted(within=timedelta(hours=48))


@service.handles(Charge)
async def right_without_session(command: Charge, context: Context[None]) -> Charged:
    assert_type(context.session, None)
    return Charged()


@service.subscribes(Paid)
async def right_event(event: Paid) -> None: ...


@service.subscribes(Paid)
def right_blocking_event(event: Paid, context: Context[None]) -> None: ...


@service.handles(Charge)  # type: ignore[arg-type]
async def wrong_command(command: Refund) -> Charged:
    return Charged()


@service.handles(Charge)  # type: ignore[arg-type]
async def wrong_reply(command: Charge) -> Refunded:
    return Refunded()


@service.handles(Charge)  # type: ignore[arg-type]
def wrong_blocking_reply(command: Charge) -> Refunded:
    return Refunded()


@service.handles(Charge)  # type: ignore[arg-type]
async def no_reply(command: Charge) -> None: ...


@service.handles(Charge)  # type: ignore[arg-type]
async def wrong_context(command: Charge, context: int) -> Charged:
    return Charged()


@service.handles(Paid)  # type: ignore[misc, arg-type, type-var]
async def event_as_command(event: Paid) -> Charged:
    return Charged()


@service.subscribes(Paid)  # type: ignore[arg-type]
async def wrong_event(event: Charge) -> None: ...


class RightClass(CommandHandler[Charge]):
    async def handle(self, command: Charge, context: Context) -> Charged | CardRefused:
        assert_type(context.session, AsyncSession)
        return Charged()


class RightBlockingClass(CommandHandler[Charge]):
    def handle(self, command: Charge, context: Context[Session]) -> Charged:
        return Charged()


class RightEventClass(EventHandler[Paid]):
    key = "*.paid"

    async def handle(self, event: Paid, context: Context[None]) -> None: ...


service.register(RightClass())
service.register(RightBlockingClass())
service.register(RightEventClass())


async def asking(bus: Bus) -> None:
    assert_type(await bus.request(Charge(cents=1), to="payments", timeout=timedelta(seconds=1)), Charged)
    refunded: Refunded = await bus.request(Charge(cents=1), to="payments")  # type: ignore[arg-type]
    await bus.publish(Charge(cents=len(refunded.refund)))  # type: ignore[arg-type]


async def tells(awaited: AsyncSession, blocking: Session) -> None:
    assert_type(await service.publish(Paid(cents=1), session=awaited), str)
    service.publish(Paid(cents=1), session=blocking, ordering_key="42")
    service.send(Charge(cents=1), to="payments", session=sqlite3.connect("shop.db").cursor())
    service.publish(Paid(cents=1), session="a session")  # type: ignore[call-overload]
    service.publish(Paid(cents=1), session=awaited)  # type: ignore[unused-coroutine]
