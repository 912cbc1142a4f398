"""Shops to break: each on databases of its own, copied from one that was migrated once."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import create_engine

from messaging.sql.tables import tables
from orchestrator.sql.migrate import upgrade
from tests.faults.shop import own
from tests.faults.system import NewShop, System, names_on_the_broker, opened
from tests.support.broker import Broker
from tests.support.databases import fresh_database


def prepared(sagas_url: str, shop_url: str) -> None:
    """Create the tables of the sagas, and those of the participants."""
    upgrade(sagas_url)
    for url, metadata in ((sagas_url, own), (shop_url, tables().metadata), (shop_url, own)):
        engine = create_engine(url.replace("+asyncpg", "+psycopg").replace("+aiosqlite", ""))
        metadata.create_all(engine)
        engine.dispose()


@pytest.fixture(scope="session")
def shop_templates(postgres_url: str) -> Iterator[tuple[str, str]]:
    """The names of two migrated databases, to be copied."""
    with fresh_database(postgres_url) as sagas, fresh_database(postgres_url) as shop:
        prepared(sagas, shop)
        yield urlsplit(sagas).path[1:], urlsplit(shop).path[1:]


@pytest.fixture
def new_shop(broker: Broker, postgres_url: str, shop_templates: tuple[str, str], tmp_path: Path) -> NewShop:
    """Makes shops on RabbitMQ and PostgreSQL, as many as a test wants."""

    @asynccontextmanager
    async def new() -> AsyncIterator[System]:
        name = secrets.token_hex(4)
        directory = tmp_path / name
        directory.mkdir()
        prefix = f"t-{name}."
        for queue in names_on_the_broker(prefix):
            broker.queue(queue)
        broker.exchange(f"{prefix}events")
        sagas, shop = shop_templates
        with fresh_database(postgres_url, template=sagas) as a, fresh_database(postgres_url, template=shop) as b:
            async with opened(System(broker.url, prefix, a, b, directory)) as system:
                yield system

    return new


@pytest.fixture
async def shop(new_shop: NewShop) -> AsyncIterator[System]:
    """One shop on RabbitMQ and PostgreSQL."""
    async with new_shop() as system:
        yield system
