"""SIGTERM drains within its bound; a second one ends at once."""

from __future__ import annotations

import signal

import pytest
from sqlalchemy import text

from tests.faults.shop import Kind
from tests.faults.system import System, eventually


async def test_sigterm_in_the_middle_leaves_nothing_unsent_and_loses_nothing(shop: System) -> None:
    services, orchestrator = await shop.start("services"), await shop.start("orchestrator")
    await shop.place([Kind.PLAIN] * 150)
    await shop.more_happened(than=50)
    await orchestrator.stop(within=60)
    unsent = await shop.column("SELECT step FROM saga_step WHERE send_after IS NOT NULL")
    assert unsent == []

    await services.stop(within=60)
    orchestrator, services = await shop.start("orchestrator"), await shop.start("services")
    await shop.more_happened(than=await shop.effects() + 50)
    await services.stop(within=60)
    await shop.start("services")
    await shop.finished()


async def test_sigterm_ends_in_time_even_when_the_database_hangs(shop: System) -> None:
    await shop.start("services")
    orchestrator = await shop.start("orchestrator", ORCHESTRATOR_DRAIN_SECONDS="2")
    async with shop.sagas.connect() as other:
        await other.execute(text("LOCK TABLE saga_instance IN ACCESS EXCLUSIVE MODE"))
        await eventually(lambda: somebody_waits(shop), "the engine waits for the lock")
        orchestrator.terminate()
        await orchestrator.ended(within=60)
    await shop.place()
    await shop.start("orchestrator")
    await shop.finished()


async def test_a_second_sigterm_ends_at_once(shop: System) -> None:
    orchestrator = await shop.start("orchestrator", ORCHESTRATOR_DRAIN_SECONDS="600")
    async with shop.sagas.connect() as other:
        await other.execute(text("LOCK TABLE saga_instance IN ACCESS EXCLUSIVE MODE"))
        await eventually(lambda: somebody_waits(shop), "the engine waits for the lock")
        orchestrator.terminate()

        async def stopping() -> bool:
            return "Stopping" in orchestrator.log.read_text()

        await eventually(stopping, "it has begun to stop")
        orchestrator.terminate()
        status = await orchestrator.ended(within=60)
    assert status == 128 + signal.SIGTERM


@pytest.mark.parametrize("role", ["orchestrator", "services"])
async def test_an_idle_process_ends_at_once_on_sigterm(shop: System, role: str) -> None:
    process = await shop.start(role, ORCHESTRATOR_DRAIN_SECONDS="600")
    await process.stop(within=60)


async def somebody_waits(shop: System) -> bool:
    query = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'saga_instance'::regclass"
    return bool((await shop.column(query))[0])
