"""The page about kinds of step: its programs are imported as they stand, and do what the page says."""

from __future__ import annotations

import asyncio
import importlib
import re
from datetime import date, timedelta
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from orchestrator import Orchestrator, OrchestratorSettings, SagaClient, SagaStatus, running
from orchestrator.sql.migrate import upgrade
from orchestrator.testing import SagaHarness, SagaProbe

PAGE = (Path(__file__).parents[3] / "docs" / "steps.md").read_text(encoding="utf-8")


class Desk(dict[str, str]):
    """Tells when something lies on it."""

    def __init__(self) -> None:
        super().__init__()
        self.filled = asyncio.Event()

    def __setitem__(self, ship: str, token: str) -> None:
        super().__setitem__(ship, token)
        self.filled.set()


def program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (text,) = re.findall(rf"```python\n(# {name}.py\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return program("refitting", tmp_path, monkeypatch)


async def test_the_permit_of_the_page_comes_by_its_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = program("permits", tmp_path, monkeypatch)
    monkeypatch.setattr(page, "desk", Desk())
    database = OrchestratorSettings(database_url=f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}")

    async with running(Orchestrator(sagas=[page.Sail]), page.harbour_office, settings=database):
        engine = create_async_engine(database.url)
        client = SagaClient(engine)
        started = await client.start(page.Sail, page.Voyage(ship="Argo"))
        await page.desk.filled.wait()
        await client.complete(page.desk["Argo"], page.PermitGiven(number="17"), by="the harbour master")
        row = await client.wait(started.id, timeout=timedelta(seconds=20))
        state = await client.state(page.Sail, started.id)
        await engine.dispose()

    assert (row.status, state.permit) == (SagaStatus.COMPLETED, "17")


def test_the_transfer_of_the_page_waits_for_its_accounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = program("transferring", tmp_path, monkeypatch)
    first = SagaProbe(page.TransferMoney, page.Transfer(payer="a", payee="b", cents=9))
    assert first.just_sent == [page.Book(account="a", cents=-9)]

    first.reply(page.Debiting, page.Booked())
    first.reply(page.Crediting, page.Booked())

    assert first.status is SagaStatus.COMPLETED


async def test_the_event_of_the_page_starts_its_saga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = program("arriving", tmp_path, monkeypatch)

    harness = SagaHarness(page.HandleStay)
    await harness.publish(page.ShipDocked(ship="Argo", number=1))
    await harness.publish(page.ShipDocked(ship="Argo", number=1))

    assert [saga.state for saga in harness.started(page.HandleStay)] == [page.Stay(ship="Argo")]


async def test_the_charters_of_the_page_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = program("chartering", tmp_path, monkeypatch)
    url = f"sqlite+aiosqlite:///{tmp_path / 'sagas.db'}"
    upgrade(url)
    engine = create_async_engine(url)
    client, day = SagaClient(engine), date(2031, 2, 3)
    for ship in ("Argo", "Beagle"):
        started = await client.start(
            page.CharterShip, page.Charter(ship=ship, sails_on=day, port=page.Port(country="x"))
        )

    assert await page.charters_of(client, "Beagle", day) == [str(started.id)]
    await engine.dispose()


def test_the_saga_of_the_page_goes_from_its_first_step_to_its_last(page: ModuleType) -> None:
    probe = SagaProbe(page.RefitShip, page.Refit(ship="Argo", parts=[page.Part(number="7", count=2)]))

    probe.ran(page.Booking)
    assert {type(command) for command in probe.just_sent} == {page.ReserveDock, page.OrderPart}
    probe.reply(page.ReservingDock, page.DockReserved(dock="north"))
    probe.reply(page.OrderingPart, page.Done(), item="7")
    probe.event(page.AwaitingShip, page.ShipArrived(ship="Argo"))
    assert probe.current_step == "CoolingDown"
    probe.advance(timedelta(hours=12))
    probe.child_completed(page.PaintingShip, page.Painting(ship="Argo"))
    assert probe.just_sent == [page.SendInvoice(ship="Argo")]
    probe.reply(page.SendingInvoice, page.Done())

    assert probe.status is SagaStatus.COMPLETED
    assert probe.state.dock == "north"
