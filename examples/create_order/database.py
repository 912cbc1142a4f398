"""The shop's own tables: what each service has, and a ledger of all it ever did.

Nothing keeps a ledger from having an entry twice: were an order shipped twice, one could see it.

    SHOP_DATABASE_URL   sqlite+aiosqlite:///shop.db unless set, or postgresql+asyncpg://USER:PASSWORD@HOST/DB

The four services of this example share a database to keep it small, and could as well have one each.
"""

from __future__ import annotations

import asyncio
import os
from uuid import UUID

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging.sql import create_tables

URL = make_url(os.environ.get("SHOP_DATABASE_URL", "sqlite+aiosqlite:///shop.db"))
_SQLITE = URL.get_backend_name() == "sqlite"

# SQLite has one writer at a time: the others wait this many seconds for their turn.
engine = create_async_engine(URL, connect_args={"timeout": 30} if _SQLITE else {})
Sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Order(Base):
    """An order as its customer sees it: pending, completed or rejected."""

    __tablename__ = "shop_order"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    customer: Mapped[str]
    amount_cents: Mapped[int]
    status: Mapped[str]


class Customer(Base):
    __tablename__ = "customer"

    name: Mapped[str] = mapped_column(primary_key=True)
    free_cents: Mapped[int]


class Stock(Base):
    __tablename__ = "stock"

    sku: Mapped[str] = mapped_column(primary_key=True)
    warehouse: Mapped[str]
    free: Mapped[int]


class Payment(Base):
    """What a customer is asked to pay: requested, captured or cancelled."""

    __tablename__ = "payment"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    amount_cents: Mapped[int]
    status: Mapped[str]


class Entry(Base):
    """One line in the ledger of a service: of which order, what was done, of whom or what, how much."""

    __tablename__ = "ledger"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(index=True)
    service: Mapped[str]
    what: Mapped[str]
    of: Mapped[str] = mapped_column(default="")
    amount: Mapped[int] = mapped_column(default=0)


class Trouble(Base):
    """How a command of an order is to go wrong, in its first so many attempts; see `rehearsal`."""

    __tablename__ = "trouble"

    order_id: Mapped[UUID] = mapped_column(primary_key=True)
    command: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    attempts: Mapped[int]


async def prepare() -> None:
    """Create the tables that are missing, the inbox and outbox too, and stock the shop."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
    async with Sessions.begin() as session:
        if await session.get(Customer, "ann") is None:
            session.add(Customer(name="ann", free_cents=1_000_000))
            session.add(Customer(name="poor-bob", free_cents=500))
            session.add(Stock(sku="lamp", warehouse="north", free=1_000))
            session.add(Stock(sku="out-of-stock", warehouse="south", free=0))
    await engine.dispose()  # whatever uses it next may do so in another event loop


if __name__ == "__main__":
    asyncio.run(prepare())
