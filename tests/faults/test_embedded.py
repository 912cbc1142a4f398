"""The default, SQLite and memory in one process: killed with sagas in flight, it goes on from its file."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.faults.conftest import prepared
from tests.faults.shop import Kind
from tests.faults.system import EVERY_KIND, System, eventually, opened
from tests.faults.test_killed_anywhere import ENGINE, PARTICIPANT, RELAY

# The rest is killed at in the torture.
MOST_TELLING = (
    "engine.committed",
    "engine.published",
    "engine.events_kept",
    "engine.local_ran",
    "participant.committed",
    "participant.replied",
    "relay.published",
)


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[System]:
    """A shop in one process, over two files. A step's deadline passes while the process is away."""
    sagas, participants = (f"sqlite+aiosqlite:///{tmp_path}/{name}.db" for name in ("sagas", "shop"))
    prepared(sagas, participants)
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    settings = {"SHOP_STEP_TIMEOUT_SECONDS": "1.5"}
    async with opened(System("memory://", "", sagas, participants, tmp_path, settings)) as system:
        yield system


async def killed_at_each(shop: System, failpoints: Iterable[str]) -> None:
    for failpoint in failpoints:
        doomed = await shop.start("all", failpoint=failpoint)
        await shop.place(EVERY_KIND)
        await doomed.killed_itself()
    await shop.start("all")
    await shop.all_ended()
    await shop.stop()
    await shop.check()


async def test_killed_at_the_most_telling_lines_it_ends_every_order_right_and_once(embedded: System) -> None:
    await killed_at_each(embedded, MOST_TELLING)


async def test_a_downtime_longer_than_every_deadline_is_no_timeout(embedded: System) -> None:
    doomed = await embedded.start("all", failpoint="participant.claimed:3")
    await embedded.place([Kind.PLAIN] * 20)
    await doomed.killed_itself()
    await eventually(lambda: deadlines_passed(embedded), "all deadlines have passed")
    began = datetime.now(UTC).replace(tzinfo=None)
    alone = await embedded.start("orchestrator")
    deadlines = await embedded.column("SELECT deadline FROM saga_step WHERE status = 'outstanding'")
    assert min(map(datetime.fromisoformat, deadlines)) >= began + timedelta(seconds=1.5)
    await alone.kill()

    await embedded.start("all", SHOP_STEP_TIMEOUT_SECONDS="60")  # however slow the machine, none passes again
    await embedded.all_ended()
    await embedded.stop()
    await embedded.check()
    assert await embedded.column("SELECT step FROM saga_attempt") == []


async def deadlines_passed(shop: System) -> bool:
    deadlines = await shop.column("SELECT deadline FROM saga_step WHERE deadline IS NOT NULL")
    return max(map(datetime.fromisoformat, deadlines)) < datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.torture
async def test_killed_at_any_line_it_ends_every_order_right_and_once(embedded: System) -> None:
    await killed_at_each(embedded, [*ENGINE, *PARTICIPANT, *RELAY])
