"""Killed at any line, and started again, the shop ends every order right, once."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.faults.system import EVERY_KIND, ROOT, Child, NewShop

ENGINE = (
    "engine.received",
    "engine.loaded",
    "engine.decided",
    "engine.committed",
    "engine.published",
    "engine.marked",
    "engine.acked",
    "engine.timer_claimed",
    "engine.sends_claimed",
    "engine.events_kept",
    "engine.local_ran",
)
PARTICIPANT = (
    "participant.received",
    "participant.claimed",
    "participant.handled",
    "participant.committed",
    "participant.replied",
    "participant.acked",
)
RELAY = ("relay.claimed", "relay.published", "relay.marked")
ELSEWHERE = ("dead_letters.replayed", "purge.archived", "purge.deleted", "purge.committed")
"""No lines of the shop's: killed there in tests/acceptance/test_dead_letters_page.py and test_purge_killed.py."""

CHAINS = {
    "engine": [("orchestrator", ENGINE[0::2]), ("orchestrator", ENGINE[1::2])],
    "relays": [("orchestrator", RELAY), ("services", RELAY)],
    "participants": [("services", PARTICIPANT[0::2]), ("services", PARTICIPANT[1::2])],
}


def test_every_failpoint_in_the_code_is_tested_here() -> None:
    sources = [*(ROOT / "messaging").rglob("*.py"), *(ROOT / "orchestrator").rglob("*.py")]
    found = {name for source in sources for name in names_reached(source)}
    assert found == {*ENGINE, *PARTICIPANT, *RELAY, *ELSEWHERE}


def names_reached(source: Path) -> list[str]:
    return re.findall(r'\breached\("([^"]+)"\)', source.read_text())


@pytest.mark.parametrize("chains", CHAINS.values(), ids=CHAINS)
async def test_killed_at_one_line_after_the_other_every_order_ends_right_and_once(
    new_shop: NewShop, chains: list[tuple[str, tuple[str, ...]]]
) -> None:
    async with asyncio.TaskGroup() as group:
        for role, failpoints in chains:
            group.create_task(killed_at_each(new_shop, role, failpoints))


async def killed_at_each(new_shop: NewShop, role: str, failpoints: Iterable[str]) -> None:
    """Kill a process at each place in turn; what it left is the next one's to finish."""
    async with new_shop() as shop:
        other = "services" if role == "orchestrator" else "orchestrator"
        await shop.start(other)
        for failpoint in failpoints:
            doomed = await shop.start(role, failpoint=failpoint)
            await shop.place(EVERY_KIND)
            await doomed.killed_itself()
        await shop.start(role)
        await shop.place(EVERY_KIND)
        await shop.finished()


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(20))
async def test_killed_at_places_and_times_drawn_by_lot_every_order_ends_right_and_once(
    new_shop: NewShop, seed: int
) -> None:
    lot = random.Random(seed)
    async with new_shop() as shop:
        for _ in range(6):
            armed = {
                "orchestrator": f"{lot.choice([*ENGINE, *RELAY])}:{lot.randint(1, 8)}",
                "services": f"{lot.choice([*PARTICIPANT, *RELAY])}:{lot.randint(1, 40)}",
            }
            doomed = [await shop.start(role, failpoint=failpoint) for role, failpoint in armed.items()]
            await shop.place(lot.choices(EVERY_KIND, k=20))
            await asyncio.gather(*(dies_or_is_killed(child) for child in doomed))
        await asyncio.gather(shop.start("orchestrator"), shop.start("services"))
        await shop.finished()


async def dies_or_is_killed(child: Child) -> None:
    """A place may not be reached so often; then any other will do."""
    try:
        await asyncio.wait_for(child.process.wait(), 8)
    except TimeoutError:
        await child.kill()
