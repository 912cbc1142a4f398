"""Sessions of either kind, for code that is written once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from messaging.sql.cursors import Cursor

T = TypeVar("T")
Sessions: TypeAlias = async_sessionmaker[Any] | sessionmaker[Any]
CoroutineSession: TypeAlias = AsyncSession | AsyncConnection | async_scoped_session[Any]
BlockingSession: TypeAlias = Session | Connection | Cursor | scoped_session[Any]
AnySession: TypeAlias = CoroutineSession | BlockingSession
"""What a message can be written through, in the transaction it is in."""


def meant(session: AnySession) -> AsyncSession | AsyncConnection | Session | Connection | Cursor:
    """The session itself: a scoped one stands for that of this thread, request or task."""
    if isinstance(session, (scoped_session, async_scoped_session)):
        current: Session | AsyncSession = session()
        return current
    return session


async def in_transaction(sessions: Sessions, work: Callable[[Session], T]) -> T:
    """Run `work` in a transaction of its own and commit it; blocking sessions run in a thread."""
    if isinstance(sessions, async_sessionmaker):
        async with sessions() as session, session.begin():
            result: T = await session.run_sync(work)
        return result
    return await asyncio.to_thread(_in_blocking_transaction, sessions, work)


def _in_blocking_transaction(sessions: sessionmaker[Any], work: Callable[[Session], T]) -> T:
    with sessions() as session, session.begin():
        return work(session)
