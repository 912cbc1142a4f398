"""A newsletter, which keeps its subscribers in a database, and a mailer, which keeps nothing.

PLAIN_BUS_DATABASE_URL   sqlite+aiosqlite:///newsletter.db unless set
PLAIN_BUS_OUTBOX         the file that mails are written to: mails.txt unless set
"""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import Context, Service
from messaging.sql import create_tables
from plain_bus.messages import MailSent, SendMail, Subscribe, Subscribed, SubscriberJoined, SubscriptionRefused

engine = create_async_engine(os.environ.get("PLAIN_BUS_DATABASE_URL", "sqlite+aiosqlite:///newsletter.db"))
Sessions = async_sessionmaker(engine)
MAILS = Path(os.environ.get("PLAIN_BUS_OUTBOX", "mails.txt"))

newsletter = Service("newsletter", sessions=Sessions)
mailer = Service("mailer")


class Base(DeclarativeBase):
    pass


class Subscriber(Base):
    __tablename__ = "subscriber"

    address: Mapped[str] = mapped_column(primary_key=True)


@newsletter.handles(Subscribe)
async def subscribe(command: Subscribe, context: Context) -> Subscribed | SubscriptionRefused:
    """One transaction: the subscriber, the stored answer, and the two messages in the outbox."""
    session = context.session
    if await session.get(Subscriber, command.address) is not None:
        return SubscriptionRefused(reason=f"{command.address} is subscribed already")
    session.add(Subscriber(address=command.address))
    number = await session.scalar(select(func.count()).select_from(Subscriber)) or 0
    context.publish(SubscriberJoined(address=command.address, number=number))
    context.send(SendMail(address=command.address, text=f"Welcome, number {number}"), to="mailer")
    return Subscribed(number=number)


@mailer.handles(SendMail)
def send_mail(command: SendMail) -> MailSent:
    """A plain function runs in a thread, so it may block."""
    _write(f"to {command.address}: {command.text}")
    return MailSent()


@mailer.subscribes(SubscriberJoined)
def subscriber_joined(event: SubscriberJoined) -> None:
    _write(f"to the editor: {event.address} has joined")


def _write(line: str) -> None:
    with MAILS.open("a") as mails:
        mails.write(line + "\n")


async def prepare() -> None:
    """Create the tables that are missing, the inbox and outbox too."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
