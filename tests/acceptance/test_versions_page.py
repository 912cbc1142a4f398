"""The page about versions: its sagas run as they stand, and its commands upgrade a trip that is in flight."""

from __future__ import annotations

import asyncio
import importlib
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import create_async_engine
from typer.testing import CliRunner

from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from orchestrator import BlockingSagaClient, Orchestrator, OrchestratorSettings, SagaClient, SagaStatus, running
from orchestrator.bulk import BulkOutcome
from orchestrator.cli import exits
from orchestrator.cli.program import app
from orchestrator.status import SagaRow
from orchestrator.testing import assert_sagas
from tests.support.programs import ROOT

PAGE = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
LOOK, UPGRADE = (line.partition("#")[0] for line in re.findall(r"^saga (upgrade .*)$", PAGE, re.MULTILINE))
PATIENCE = timedelta(seconds=20)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The page's program, and a folder with its database."""
    (program,) = re.findall(r"```python\n(# trips\.py\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / "trips.py").write_text(program, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "sqlite+aiosqlite:///saga.db")
    yield importlib.import_module("trips")
    sys.modules.pop("trips", None)


def typed(command: str) -> Result:
    words = [word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)]
    return CliRunner().invoke(app, words)


async def until(client: SagaClient, saga_id: Any, step: str) -> SagaRow:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        while True:
            row = await client.get(saga_id)
            if row.current_step == step:
                return row
            await asyncio.sleep(0.02)


def running_with(page: Any, *sagas: Any) -> Any:
    settings = OrchestratorSettings.model_validate({"poll_seconds": 0.02, "needs_version_seconds": 0.5})
    parts = (Orchestrator(list(sagas)), page.agency)
    return running(*parts, settings=settings, messaging=MessagingSettings(), transport=MemoryTransport())


async def test_the_commands_of_the_page_upgrade_a_trip_that_waits_for_its_payment(page: Any) -> None:
    engine = create_async_engine("sqlite+aiosqlite:///saga.db")
    client = SagaClient(engine)
    async with running_with(page, page.BookTripV1, page.BookTrip):
        trip = (await client.start(page.BookTripV1, page.Trip(trip="7"))).id
        await until(client, trip, "AwaitingPayment")

        looked = await asyncio.to_thread(typed, LOOK)
        assert looked.stdout == f"{trip}  can be, without BookingInsurance: it is beyond that\n"
        assert "1 saga can be upgraded, 0 not. Nothing was done." in looked.stderr
        assert (await client.get(trip)).version == 1

        done = await asyncio.to_thread(typed, f"{UPGRADE} --yes")
        assert (done.exit_code, done.stdout) == (0, f"done  {trip}\n")
        assert (await client.get(trip)).version == 2

    await engine.dispose()


async def test_a_trip_whose_version_is_gone_is_blocked_and_upgraded_out_of_it(page: Any) -> None:
    engine = create_async_engine("sqlite+aiosqlite:///saga.db")
    client = SagaClient(engine)
    async with running_with(page, page.BookTripV1):
        trip = (await client.start(page.BookTripV1, page.Trip(trip="7"))).id
        await until(client, trip, "AwaitingPayment")
        lost = (await client.start(page.BookTrip, page.Trip(trip="8"))).id
        row = await client.wait(lost, timeout=PATIENCE)
        assert (row.status, row.blocked_reason) == (SagaStatus.BLOCKED, "needs_version")
        doctor = await asyncio.to_thread(typed, "doctor")
        assert "no engine that runs has this version: 1 of book-trip v2\n" in doctor.stdout
        why = await asyncio.to_thread(typed, f"why {lost}")
        assert "No engine that runs knows this version of the saga." in why.stdout
        assert "saga upgrade book-trip --from 2 --dry-run" in why.stdout
    async with running_with(page, page.BookTrip):
        await until(client, lost, "AwaitingPayment")
        (result,) = [one async for one in client.upgrade_all(page.BookTrip, from_version=1, reason="v1 is retired")]
        assert (result.saga_id, result.outcome) == (trip, BulkOutcome.DONE)
        assert (await client.state(page.BookTrip, trip)).guests == 2
    await engine.dispose()


async def test_without_an_engine_that_has_the_version_the_request_is_kept(page: Any) -> None:
    engine = create_async_engine("sqlite+aiosqlite:///saga.db")
    client = SagaClient(engine)
    async with running_with(page, page.BookTripV1):
        trip = (await client.start(page.BookTripV1, page.Trip(trip="7"))).id
        await until(client, trip, "AwaitingPayment")

        with pytest.raises(TimeoutError, match="no engine took the upgrade of saga"):
            await client.upgrade(trip, page.BookTrip, reason="v1 is retired", within=timedelta(seconds=0.1))

    blocking = create_engine("sqlite:///saga.db")
    (found,) = BlockingSagaClient(blocking).upgradable(page.BookTrip, from_version=1)
    assert (found.saga_id, found.refused, found.passed_over) == (trip, "", ("BookingInsurance",))
    with pytest.raises(TimeoutError):
        BlockingSagaClient(blocking).upgrade(trip, page.BookTrip, reason="again", within=timedelta(seconds=0.1))
    blocking.dispose()
    await engine.dispose()


def test_an_upgrade_needs_a_reason_or_a_dry_run_and_a_version_that_is_there(page: Any) -> None:
    assert typed("upgrade book-trip --from 1 --app trips:app").exit_code == exits.USAGE
    answer = typed("upgrade book-trip --from 1 --to 9 --dry-run --app trips:app")
    assert answer.exit_code == exits.NOT_FOUND
    assert "It has: v2, v1" in answer.stderr


def test_the_golden_file_of_the_page_holds_both_versions(
    page: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RENEW_SAGAS", "1")
    assert_sagas(page.BookTrip, page.BookTripV1, golden=tmp_path / "sagas.json")
    monkeypatch.delenv("RENEW_SAGAS")

    assert_sagas(page.BookTripV1, page.BookTrip, golden=tmp_path / "sagas.json")
