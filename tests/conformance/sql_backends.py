"""Databases that keep inbox and outbox, as sessionmakers over empty tables."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from messaging.sql import create_tables

Sessions = async_sessionmaker[AsyncSession]


@pytest.fixture(params=["sqlite", "asyncpg", "psycopg"])
async def sessions(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sessions]:
    """Sessions of a database of the test's own."""
    if request.param == "sqlite":
        url = f"sqlite+aiosqlite:///{tmp_path / 'bus.db'}"
    else:
        url = request.getfixturevalue("migrated_database").replace("asyncpg", request.param)
    engine = create_async_engine(url)
    await create_tables(engine)
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


def dialect_of(sessions: Sessions) -> str:
    """`sqlite` or `postgresql`."""
    return str(sessions.kw["bind"].dialect.name)
