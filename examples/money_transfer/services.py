"""Accounts, with a ledger, and letters. Each handler is one transaction, done once."""

from __future__ import annotations

import os

from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from messaging import Context, Service
from messaging.sql import create_tables
from money_transfer.sagas import (
    AccountClosed,
    Done,
    GiveBackMoney,
    NotCovered,
    PutMoney,
    SendStatement,
    TakeMoney,
)

engine = create_async_engine(os.environ.get("BANK_DATABASE_URL", "sqlite+aiosqlite:///bank.db"))
Sessions = async_sessionmaker(engine)

accounts = Service("accounts", sessions=Sessions)
letters = Service("letters", sessions=Sessions)


class Base(DeclarativeBase):
    pass


class Account(Base):
    __tablename__ = "account"

    name: Mapped[str] = mapped_column(primary_key=True)
    balance_cents: Mapped[int]
    open: Mapped[bool] = mapped_column(default=True)


class Entry(Base):
    """One movement; those of a transfer that was given back, or has arrived, add up to nothing."""

    __tablename__ = "entry"

    id: Mapped[int] = mapped_column(primary_key=True)
    transfer_id: Mapped[str] = mapped_column(index=True)
    account: Mapped[str]
    cents: Mapped[int]


async def prepare() -> None:
    """Create the tables that are missing, the inbox too, and three accounts."""
    async with engine.begin() as connection:
        await create_tables(connection)
        await connection.run_sync(Base.metadata.create_all)
    async with Sessions.begin() as session:
        if await session.get(Account, "ann") is None:
            session.add_all([Account(name="ann", balance_cents=10_000), Account(name="bob", balance_cents=0)])
            session.add(Account(name="late-carl", balance_cents=0, open=False))
    await engine.dispose()  # whatever uses it next may do so in another event loop


@accounts.handles(TakeMoney)
async def take_money(command: TakeMoney, context: Context) -> Done | NotCovered | AccountClosed:
    account = await locked(context, command.account)
    if account is None:
        return AccountClosed(reason=f"{command.account} has no account here")
    if account.balance_cents < command.cents:
        return NotCovered(reason="not covered", balance_cents=account.balance_cents)
    move(context, command.transfer_id, account, -command.cents)
    return Done()


@accounts.handles(GiveBackMoney)
async def give_back_money(command: GiveBackMoney, context: Context) -> Done:
    taken = (await context.session.scalars(select(Entry).where(Entry.transfer_id == command.transfer_id))).one()
    account = await context.session.get_one(Account, taken.account, with_for_update=True)
    move(context, command.transfer_id, account, -taken.cents)
    return Done()


@accounts.handles(PutMoney)
async def put_money(command: PutMoney, context: Context) -> Done | AccountClosed:
    account = await locked(context, command.account)
    if account is None:
        return AccountClosed(reason=f"{command.account} has no account here")
    move(context, command.transfer_id, account, command.cents)
    return Done()


@letters.handles(SendStatement)
async def send_statement(command: SendStatement) -> Done:
    return Done()


async def locked(context: Context, name: str) -> Account | None:
    """An open account, which nobody else moves until this transaction ends."""
    account = await context.session.get(Account, name, with_for_update=True)
    return account if account is not None and account.open else None


def move(context: Context, transfer_id: str, account: Account, cents: int) -> None:
    account.balance_cents += cents
    context.session.add(Entry(transfer_id=transfer_id, account=account.name, cents=cents))
