"""Every transport, and every database of sagas, to be held against the suites."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.transport_backends import MemoryBackend, RabbitBackend, RedisBackend, TransportBackend
from tests.support.broker import Broker
from tests.support.databases import new_sqlite
from tests.support.redis_keys import keys_removed


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A migrated database, as the orchestrator's settings name it."""
    if request.param == "postgresql":
        return str(request.getfixturevalue("migrated_database"))
    url = f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}"
    new_sqlite(url)
    return url


@pytest.fixture(
    params=["memory", "rabbitmq-fast", "rabbitmq-plain", "rabbitmq-classic", "redis-durable", "redis-forgetful"]
)
async def backend(request: pytest.FixtureRequest) -> AsyncIterator[TransportBackend]:
    if request.param == "memory":
        backend: TransportBackend = MemoryBackend()
        await backend.transport.open()
        yield backend
        await backend.close()
        return
    if request.param.startswith("redis"):
        url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("prefix")
        backend = RedisBackend(url, prefix, survives_restart=request.param == "redis-durable")
        async with keys_removed(url, prefix):
            await backend.transport.open()
            try:
                yield backend
            finally:
                await backend.close()
        return
    url, prefix = request.getfixturevalue("amqp_url"), request.getfixturevalue("prefix")
    options = {"fast": request.param != "rabbitmq-plain"}
    if request.param == "rabbitmq-classic":
        options["queue_type"] = "classic"
    async with Broker(url) as broker:
        backend = RabbitBackend(url, prefix, broker, **options)
        await backend.transport.open()
        try:
            yield backend
        finally:
            await backend.close()
