"""RabbitMQ or PostgreSQL dies in the middle and comes back; the processes live through it by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.faults.conftest import prepared
from tests.faults.system import EVERY_KIND, System, opened
from tests.support.databases import fresh_database
from tests.support.private import PrivateServer
from tests.support.services import PrivatePostgres, PrivateRabbit


async def test_the_broker_dies_and_comes_back(
    private_rabbit: PrivateRabbit, postgres_url: str, prefix: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_url) as sagas, fresh_database(postgres_url) as participants:
        prepared(sagas, participants)
        shop = System(private_rabbit.url, prefix, sagas, participants, tmp_path)
        async with opened(shop):
            await lives_through(shop, private_rabbit, orders_meanwhile=True)


@pytest.mark.torture
async def test_the_broker_dies_again_and_again(
    private_rabbit: PrivateRabbit, postgres_url: str, prefix: str, tmp_path: Path
) -> None:
    with fresh_database(postgres_url) as sagas, fresh_database(postgres_url) as participants:
        prepared(sagas, participants)
        shop = System(private_rabbit.url, prefix, sagas, participants, tmp_path)
        async with opened(shop):
            await lives_through(shop, private_rabbit, orders_meanwhile=True, rounds=10)


@pytest.mark.parametrize("whose", ["the orchestrator's", "the services'"])
async def test_a_database_dies_and_comes_back(
    private_postgres: PrivatePostgres, shop: System, tmp_path: Path, whose: str
) -> None:
    """The other database, and the broker, stay."""
    with fresh_database(private_postgres.url) as sagas, fresh_database(private_postgres.url) as participants:
        prepared(sagas, participants)
        mixed = System(
            shop.broker_url,
            shop.prefix,
            sagas if whose == "the orchestrator's" else shop.sagas_url,
            participants if whose == "the services'" else shop.shop_url,
            tmp_path,
        )
        async with opened(mixed):
            await lives_through(mixed, private_postgres, orders_meanwhile=whose == "the services'")


async def lives_through(shop: System, server: PrivateServer, *, orders_meanwhile: bool, rounds: int = 1) -> None:
    processes = await asyncio.gather(shop.start("orchestrator"), shop.start("services"))
    await shop.place(EVERY_KIND)
    await shop.all_ended()  # so that all queues have been used, and are older than a moment
    for _ in range(rounds):
        before = await shop.effects()
        await shop.place(EVERY_KIND * 6)
        await shop.more_happened(than=before)
        async with away(server):
            if orders_meanwhile:
                await shop.place(EVERY_KIND)
    await shop.place(EVERY_KIND)
    await shop.all_ended(within=90)
    assert all(process.alive for process in processes)
    await shop.finished()


@asynccontextmanager
async def away(server: PrivateServer) -> AsyncIterator[None]:
    """Kill a server for as long as the block lasts."""
    await asyncio.to_thread(server.kill)
    yield
    await asyncio.to_thread(server.restart)
