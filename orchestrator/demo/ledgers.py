"""What the services keep, in a database of their own beside the sagas'."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import String, func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging.sql import create_tables

Sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(expire_on_commit=False)
"""Of every service of the shop; `opened` binds them to a file."""


class Ledger(DeclarativeBase):
    """The shop's tables."""


class Customer(Ledger):
    """A customer, and what they may still spend."""

    __tablename__ = "customer"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    free_cents: Mapped[int]
    pays: Mapped[bool]


class Product(Ledger):
    """A product, and how many are on the shelf."""

    __tablename__ = "product"
    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    on_shelf: Mapped[int]
    sold_here: Mapped[bool] = mapped_column(default=True)
    carried: Mapped[bool] = mapped_column(default=True)
    shelf_jams: Mapped[bool] = mapped_column(default=False)


class Order(Ledger):
    """An order as the shop's books have it: pending, rejected or shipped."""

    __tablename__ = "shop_order"
    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    customer: Mapped[str]
    product: Mapped[str]
    status: Mapped[str]
    note: Mapped[str] = mapped_column(default="")


class CreditHold(Ledger):
    """Credit held for an order."""

    __tablename__ = "credit_hold"
    order_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    customer: Mapped[str]
    amount_cents: Mapped[int]


class StockHold(Ledger):
    """Goods put aside for an order."""

    __tablename__ = "stock_hold"
    order_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    product: Mapped[str]


@asynccontextmanager
async def opened(file: Path) -> AsyncGenerator[None]:
    """Create the tables where they are missing and bind `Sessions` to them, for as long as the block lasts."""
    # One connection: SQLite has one writer, and waiting for a turn here is quicker than asking the file for it.
    engine = create_async_engine(f"sqlite+aiosqlite:///{file}", pool_size=1, max_overflow=0)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            await connection.exec_driver_sql("PRAGMA synchronous=NORMAL")
            await connection.run_sync(Ledger.metadata.create_all)
            await create_tables(connection)
        Sessions.configure(bind=engine)
        yield
    finally:
        await engine.dispose()


async def stock_up(customers: list[Customer], products: list[Product]) -> int:
    """Fill the ledgers; return how many orders the books have already."""
    async with Sessions.begin() as session:
        for row in (*customers, *products):
            await session.merge(row)
        return await session.scalar(select(func.count()).select_from(Order)) or 0
