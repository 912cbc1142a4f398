"""A whole shop over Redis and SQLite: its processes are killed, and every order ends right and once."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.faults.conftest import prepared
from tests.faults.system import EVERY_KIND, QUEUES, System, opened
from tests.support.redis_keys import keys_removed


@pytest.fixture
async def plain(redis_url: str, prefix: str) -> AsyncIterator[Redis]:
    async with keys_removed(redis_url, prefix) as client:
        yield client


@pytest.fixture(params=["true", pytest.param("false", marks=pytest.mark.torture)], ids=["durable", "forgetful"])
async def shop(
    request: pytest.FixtureRequest, redis_url: str, plain: Redis, prefix: str, tmp_path: Path
) -> AsyncIterator[System]:
    sagas, participants = (f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("sagas", "shop"))
    prepared(sagas, participants)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    settings = {"MESSAGING_REDIS_DEAD_AFTER_SECONDS": "1", "MESSAGING_REDIS_SURVIVES_RESTART": request.param}
    async with opened(System(redis_url, prefix, sagas, participants, tmp_path, settings)) as system:
        yield system


async def test_orders_end_right_and_once_over_killed_processes_and_leave_nothing_in_the_streams(
    shop: System, plain: Redis, prefix: str
) -> None:
    services = await shop.start("services", failpoint="participant.committed:5")
    orchestrator = await shop.start("orchestrator", failpoint="engine.committed:4")
    await shop.place([*EVERY_KIND, *EVERY_KIND])
    await orchestrator.killed_itself()
    await shop.start("orchestrator")
    await services.killed_itself()
    await shop.start("services")
    await shop.all_ended()
    await shop.stop()
    await shop.check()
    left = {name: await plain.xlen(f"{prefix}queue:{name}{end}") for name in QUEUES for end in ("", ".dead")}
    assert set(left.values()) == {0}, left
    assert await plain.zcard(f"{prefix}delayed:{QUEUES[0]}") == 0
