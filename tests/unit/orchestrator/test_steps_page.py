"""The page about kinds of step: its programs are imported as they stand, and do what the page says."""

from __future__ import annotations

import importlib
import re
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator import SagaStatus
from orchestrator.testing import SagaHarness, SagaProbe

PAGE = (Path(__file__).parents[3] / "docs" / "steps.md").read_text(encoding="utf-8")


def program(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    (text,) = re.findall(rf"```python\n(# {name}.py\n.*?)```", PAGE, re.DOTALL)
    (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    return importlib.import_module(name)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return program("refitting", tmp_path, monkeypatch)


async def test_the_event_of_the_page_starts_its_saga(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = program("arriving", tmp_path, monkeypatch)

    harness = SagaHarness(page.HandleStay)
    await harness.publish(page.ShipDocked(ship="Argo", number=1))
    await harness.publish(page.ShipDocked(ship="Argo", number=1))

    assert [saga.state for saga in harness.started(page.HandleStay)] == [page.Stay(ship="Argo")]


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
