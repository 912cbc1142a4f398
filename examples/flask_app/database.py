"""The tables of the shop and of the warehouse; in earnest each would have a database of its own."""

from __future__ import annotations

import os

from sqlalchemy import create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker

from messaging.sql import tables

engine = create_engine(os.environ.get("SHOP_DATABASE_URL", "sqlite:///shop.db"))
Sessions = sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[str] = mapped_column(primary_key=True)
    article: Mapped[str]


class Shelf(Base):
    __tablename__ = "shelf"

    article: Mapped[str] = mapped_column(primary_key=True)
    pieces: Mapped[int]


def prepare() -> None:
    """Create the tables that are missing, inbox and outbox too, and fill the shelf."""
    tables().metadata.create_all(engine)
    Base.metadata.create_all(engine)
    with Sessions.begin() as session:
        if session.get(Shelf, "lamp") is None:
            session.add(Shelf(article="lamp", pieces=3))
