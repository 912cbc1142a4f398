"""A participant whose database dies and comes back."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from messaging import envelope as wire
from messaging.sql import create_tables
from messaging.transport import dead_letter_queue
from tests.integration.killed_participant import Charge, own, payments
from tests.support.private import PrivatePostgres
from tests.unit.messaging.support import noticing, running


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_commands_wait_for_the_database_and_are_answered_when_it_is_back(
    private_postgres: PrivatePostgres, caplog: pytest.LogCaptureFixture, driver: str
) -> None:
    url = private_postgres.url.replace("postgresql://", f"postgresql+{driver}://")
    engine = create_async_engine(url)
    await create_tables(engine)
    async with engine.begin() as connection:
        await connection.run_sync(own.create_all)
    async with running(payments(url)) as asking:
        assert (await asking.ask(Charge(number="1"))).text_header(wire.OUTCOME) == "success"
        await asyncio.to_thread(private_postgres.kill)
        with noticing("messaging.outage", "cannot be used") as paused:
            sent = [await asking.send(Charge(number=str(number))) for number in range(2, 20)]
            await asyncio.wait_for(paused.wait(), 30)
        await asyncio.to_thread(private_postgres.restart)
        answers = [await asyncio.wait_for(asking.reply(), 60) for _ in sent]
        dead = await asking.transport.subscribe(dead_letter_queue("payments"), prefetch_messages=1)
        assert await dead.backlog() == 0
    await engine.dispose()

    assert {answer.text_header(wire.OUTCOME) for answer in answers} == {"success"}
    assert sum("database of service" in message and "cannot" in message for message in caplog.messages) == 1
