"""A warehouse with a shelf for each article. Each handler is one transaction, done once."""

from __future__ import annotations

import os

from sqlalchemy import update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import Context, Service
from messaging.sql import create_tables
from order_lines.sagas import Done, OutOfStock, ReleaseStock, ReserveStock, ShipOrder

ON_A_FULL_SHELF = 100

engine = create_async_engine(os.environ.get("WAREHOUSE_DATABASE_URL", "sqlite+aiosqlite:///warehouse.db"))
Sessions = async_sessionmaker(engine)

warehouse = Service("warehouse", sessions=Sessions)


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"

    sku: Mapped[str] = mapped_column(primary_key=True)
    left: Mapped[int]


class Reservation(Base):
    __tablename__ = "reservation"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]
    status: Mapped[str]


async def prepare() -> None:
    """Create the tables that are missing, the inbox too."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
    await engine.dispose()  # whatever uses it next may do so in another event loop


@warehouse.handles(ReserveStock)
async def reserve_stock(command: ReserveStock, context: Context) -> Done | OutOfStock:
    shelf = await context.session.get(Shelf, command.sku, with_for_update=True)
    if shelf is None:
        shelf = Shelf(sku=command.sku, left=ON_A_FULL_SHELF)
        context.session.add(shelf)
    if shelf.left < command.pieces:
        return OutOfStock(reason=f"{shelf.left} of {command.sku} are left", left=shelf.left)
    shelf.left -= command.pieces
    context.session.add(
        Reservation(order_id=command.order_id, sku=command.sku, pieces=command.pieces, status="reserved")
    )
    return Done()


@warehouse.handles(ReleaseStock)
async def release_stock(command: ReleaseStock, context: Context) -> Done:
    reservation = await context.session.get_one(Reservation, (command.order_id, command.sku))
    shelf = await context.session.get_one(Shelf, command.sku, with_for_update=True)
    shelf.left += reservation.pieces
    reservation.status = "released"
    return Done()


@warehouse.handles(ShipOrder)
async def ship_order(command: ShipOrder, context: Context) -> Done:
    await context.session.execute(
        update(Reservation).where(Reservation.order_id == command.order_id).values(status="shipped")
    )
    return Done()
