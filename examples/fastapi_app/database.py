"""The tables of the web service, in the orchestrator's database: so a start can be part of a request's transaction."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from orchestrator import OrchestratorSettings

_url = make_url(OrchestratorSettings().url)

# SQLite has one writer at a time: the others wait this many seconds for their turn.
engine = create_async_engine(_url, connect_args={"timeout": 30} if _url.get_backend_name() == "sqlite" else {})
Sessions = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Booking(Base):
    __tablename__ = "booking"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    guest: Mapped[str] = mapped_column(unique=True)  # one booking each
    seat: Mapped[str]


class Seat(Base):
    __tablename__ = "seat"

    name: Mapped[str] = mapped_column(primary_key=True)
    booking_id: Mapped[UUID]


async def prepare() -> None:
    """Create the tables that are missing."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
