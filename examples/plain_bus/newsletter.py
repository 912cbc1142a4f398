"""The newsletter, which keeps its subscribers in a database of its own. Coroutines, and an `AsyncSession`.

PLAIN_BUS_NEWSLETTER_URL   sqlite+aiosqlite:///newsletter.db unless set
"""

from __future__ import annotations

import os

from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import Context, Service
from messaging.sql import create_tables
from plain_bus.messages import (
    IssuePublished,
    MailBounced,
    SendMail,
    Subscribe,
    Subscribed,
    SubscriberJoined,
    SubscriptionRefused,
)

engine = create_async_engine(os.environ.get("PLAIN_BUS_NEWSLETTER_URL", "sqlite+aiosqlite:///newsletter.db"))
newsletter = Service("newsletter", sessions=async_sessionmaker(engine))


class Base(DeclarativeBase):
    pass


class Subscriber(Base):
    __tablename__ = "subscriber"

    address: Mapped[str] = mapped_column(primary_key=True)


@newsletter.handles(Subscribe)
async def subscribe(command: Subscribe, context: Context) -> Subscribed | SubscriptionRefused:
    """One transaction: the subscriber, the stored answer, and the two messages in the outbox."""
    session, address = context.session, command.address
    if await session.get(Subscriber, address) is not None:
        return SubscriptionRefused(reason=f"{address} is subscribed already")
    session.add(Subscriber(address=address))
    number = await session.scalar(select(func.count()).select_from(Subscriber)) or 0
    context.publish(SubscriberJoined(address=address, number=number), exchange="subscribers", key=_by_domain(address))
    _mail(context, address, f"Welcome, number {number}")
    return Subscribed(number=number)


@newsletter.subscribes(IssuePublished, exchange="issues", kind="fanout")
async def send_issue(event: IssuePublished, context: Context) -> None:
    for address in await context.session.scalars(select(Subscriber.address)):
        _mail(context, address, f"A new issue: {event.title}")


@newsletter.subscribes(MailBounced, exchange="bounces", kind="direct", key="gone")
async def forget(event: MailBounced, context: Context) -> None:
    await context.session.execute(delete(Subscriber).where(Subscriber.address == event.address))


def _mail(context: Context, address: str, text: str) -> None:
    """Nobody is sent an issue before the welcome."""
    context.send(SendMail(address=address, text=text), to="mailer", ordering_key=address)


def _by_domain(address: str) -> str:
    """The widest part first, so that `org.#` is every organisation."""
    return ".".join(reversed(address.rpartition("@")[2].split(".")))


async def prepare() -> None:
    """Create the tables that are missing, inbox and outbox too."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
