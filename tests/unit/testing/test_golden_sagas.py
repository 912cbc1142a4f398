"""The golden file of sagas: what sagas in flight depend on does not change unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator import Parallel, Saga
from orchestrator.testing import assert_sagas
from tests.unit.orchestrator.test_upgrading import Booking, Car, Flight, Hotel, Paying, stepping, version

V1 = version(1, Flight(), Parallel(Hotel(), Car()), Paying())


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "sagas.json"
    monkeypatch.setenv("RENEW_SAGAS", "1")
    assert_sagas(V1, golden=path)
    monkeypatch.delenv("RENEW_SAGAS")
    return path


def told(golden: Path, *sagas: type[Saga[Any]]) -> list[str]:
    with pytest.raises(AssertionError) as raised:
        assert_sagas(*sagas, golden=golden)
    return str(raised.value).splitlines()


def test_what_is_as_agreed_passes_and_the_file_can_be_read_by_people(golden: Path) -> None:
    assert_sagas(V1, golden=golden)
    assert json.loads(golden.read_text()) == {
        "book-trip v1": {
            "fingerprint": V1.plan.fingerprint,
            "steps": {
                "Flight": "command compensatable book unbook",
                "Hotel": "command compensatable book unbook",
                "Car": "command compensatable book unbook",
                "Paying": "event paid",
            },
        }
    }


def test_a_renamed_step_is_told_with_how_to_keep_its_name(golden: Path) -> None:
    renamed = version(1, stepping(Booking, name="Plane"), Parallel(Hotel(), Car()), Paying())

    assert told(golden, renamed) == [
        "sagas are not what sagas.json says:",
        "- book-trip v1 has changed, and sagas of it in flight would be left without their definition:",
        "  step Flight (command compensatable book unbook) is gone; Plane is new. "
        "Renamed? Say name = 'Flight' on the class.",
        "  step Plane (command compensatable book unbook) is new.",
        "  Unless names alone differ: give the class a higher version, and register the old class beside it.",
        "If it is meant so: RENEW_SAGAS=1 pytest ..., and commit sagas.json.",
    ]


def test_a_renamed_saga_is_told_with_how_to_keep_its_name(golden: Path) -> None:
    renamed = version(1, Flight(), Parallel(Hotel(), Car()), Paying(), name="travel")

    assert told(golden, renamed)[1:3] == [
        "- book-trip v1 is gone. Was its class renamed? Say name = 'book-trip' on it.",
        "- travel v1 is new.",
    ]


def test_a_version_that_is_gone_is_told_with_what_its_sagas_need(golden: Path) -> None:
    lines = told(golden, version(2, Flight()))

    assert lines[1].startswith("- book-trip v1 is gone. Sagas of it in flight need it")
    assert lines[3] == "- book-trip v2 is new."


def test_another_order_and_another_role_are_changes_too(golden: Path) -> None:
    assert "  its steps stand in another order, or in other groups." in told(
        golden, version(1, Parallel(Hotel(), Car()), Flight(), Paying())
    )
    longer = version(1, Flight(), Parallel(Hotel(), Car()), Paying(), Booking())
    assert "  step Booking (command compensatable book unbook) is new." in told(golden, longer)


def test_without_a_file_the_test_says_how_to_write_it(tmp_path: Path) -> None:
    assert "Write it: RENEW_SAGAS=1 pytest" in told(tmp_path / "none.json", V1)[0]
