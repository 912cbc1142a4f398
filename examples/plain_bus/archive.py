"""The archive, on a database of its own with a blocking driver: plain functions, each in a thread with a `Session`.

PLAIN_BUS_ARCHIVE_URL   sqlite:///archive.db unless set
"""

from __future__ import annotations

import os

from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from messaging import Context, Service
from messaging.sql import tables
from plain_bus.messages import CountReaders, IssuePublished, Readers, SubscriberJoined

engine = create_engine(os.environ.get("PLAIN_BUS_ARCHIVE_URL", "sqlite:///archive.db"))
archive = Service("archive", sessions=sessionmaker(engine))


class Base(DeclarativeBase):
    pass


class Organisation(Base):
    __tablename__ = "organisation"

    reader: Mapped[str] = mapped_column(primary_key=True)


class Issue(Base):
    __tablename__ = "issue"

    number: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]


@archive.subscribes(SubscriberJoined, exchange="subscribers", key="org.#")
def note_organisation(event: SubscriberJoined, context: Context[Session]) -> None:
    context.session.merge(Organisation(reader=event.address))  # who left may come back


@archive.subscribes(IssuePublished, exchange="issues", kind="fanout")
def keep(event: IssuePublished, context: Context[Session]) -> None:
    context.session.add(Issue(title=event.title))


@archive.handles(CountReaders)
def count_readers(_: CountReaders, context: Context[Session]) -> Readers:
    counts = [context.session.scalar(select(func.count()).select_from(table)) or 0 for table in (Organisation, Issue)]
    return Readers(organisations=counts[0], issues=counts[1])


def prepare() -> None:
    """Create the tables that are missing, inbox and outbox too."""
    tables().metadata.create_all(engine)
    Base.metadata.create_all(engine)
