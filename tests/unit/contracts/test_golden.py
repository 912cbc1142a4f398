"""The golden file of contracts."""

from __future__ import annotations

from pathlib import Path

import pytest

from messaging import Command, Event, Reply, Service
from messaging.contracts import party_of
from messaging.testing import assert_contracts


def scale(*, version: int = 1, unit: str = "grams", words: str = "Weigh it.") -> Service:
    """A service whose one message is written a little differently each time."""
    body = {"__annotations__": {unit: int, "title": str}, "title": "", "__module__": __name__, "__doc__": words}
    weigh: type[Command[Reply]] = type("Weigh", (Command[Reply],), body, version=version)
    service = Service("scale")

    @service.handles(weigh)
    async def handle(command: Command[Reply]) -> Reply:
        return Reply()

    return service


@pytest.fixture
def golden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "contracts.json"
    monkeypatch.setenv("RENEW_CONTRACTS", "1")
    assert_contracts(scale(), golden=path)
    monkeypatch.delenv("RENEW_CONTRACTS")
    return path


def test_what_is_as_agreed_passes_whatever_people_are_told_about_it(golden: Path) -> None:
    assert_contracts(scale(), golden=golden)
    assert_contracts(party_of(scale(words="Put it on the scale.")), golden=golden)


def test_a_renamed_field_is_shown_with_what_to_do(golden: Path) -> None:
    with pytest.raises(AssertionError) as told:
        assert_contracts(scale(unit="ounces"), golden=golden)

    lines = str(told.value).splitlines()
    assert lines[0] == "messages are not what contracts.json says:"
    assert '-        "grams": {' in lines and '+        "ounces": {' in lines
    assert "RENEW_CONTRACTS=1 pytest" in lines[-1]


@pytest.mark.parametrize("changed", [scale(version=2), Service("scale")])
def test_another_version_or_a_message_that_is_gone_is_seen(golden: Path, changed: Service) -> None:
    with pytest.raises(AssertionError, match=r"messages are not what contracts\.json says"):
        assert_contracts(changed, golden=golden)


def test_a_new_message_is_seen(golden: Path) -> None:
    class Weighed(Event):
        grams: int

    service = scale()
    service.publishes = (Weighed,)
    with pytest.raises(AssertionError, match=r'\+  "weighed": {'):
        assert_contracts(service, golden=golden)


def test_without_a_golden_file_the_test_fails_and_says_how_to_write_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"there is no .*none\.json yet\. Write it: RENEW_CONTRACTS=1 pytest"):
        assert_contracts(scale(), golden=tmp_path / "none.json")
