"""Several replicas under load, one of them killed again and again; messages to some queues travel in batches."""

from __future__ import annotations

import random

import pytest

from tests.faults.shop import Kind
from tests.faults.system import EVERY_KIND, NewShop, System

ROLES = ("orchestrator", "orchestrator", "services", "services")


@pytest.mark.timeout(300)  # longer than the patience below, which tells what is left open
async def test_replicas_killed_in_turn_lose_nothing_and_double_nothing(shop: System) -> None:
    await killed_at_random(shop, seed=4711, kills=5, orders=30)


@pytest.mark.torture
@pytest.mark.parametrize("seed", range(10))
async def test_replicas_killed_in_turn_for_longer_lose_nothing(new_shop: NewShop, seed: int) -> None:
    async with new_shop() as shop:
        await killed_at_random(shop, seed=seed, kills=25, orders=100, within=900)


async def killed_at_random(shop: System, *, seed: int, kills: int, orders: int, within: float = 120) -> None:
    """Before each kill, place orders and wait until some of them are under way."""
    lot = random.Random(seed)
    shop.settings = {"MESSAGING_COALESCE_TO": "customers,warehouse,orchestrator.main.replies"}
    replicas = [await shop.launch(role) for role in ROLES]
    for replica in replicas:
        await replica.ready()
    for _ in range(kills):
        before = await shop.effects()
        await shop.place(lot.choices([Kind.PLAIN, *EVERY_KIND], k=orders))
        await shop.more_happened(than=before + lot.randint(0, orders * 5))
        victim = lot.randrange(len(replicas))
        await replicas[victim].kill()
        replicas[victim] = await shop.launch(ROLES[victim])
    for replica in replicas:
        await replica.ready()
    await shop.finished(within=within)
