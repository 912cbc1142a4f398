"""`module:attribute`: what is loaded, and what is said when it cannot be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from messaging import Service
from orchestrator import Orchestrator
from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError
from orchestrator.cli.targets import loaded, loaded_app

SHOP = """
from messaging import Service
from orchestrator import Orchestrator
from orchestrator.demo import CreateOrderSaga

app = Orchestrator([CreateOrderSaga])
customers = Service("customers")
limits = {}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules of the test's own, forgotten afterwards."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    (tmp_path / "cli_shop.py").write_text(SHOP)
    (tmp_path / "cli_broken.py").write_text("import cli_shop\nraise RuntimeError('no licence')\n")
    (tmp_path / "cli_needy.py").write_text("import a_package_nobody_has\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("cli_"):
            del sys.modules[name]


def refusal(target: str, folder: Path) -> str:
    with pytest.raises(CommandError) as caught:
        loaded(target, app_dir=str(folder))
    assert caught.value.code == exits.USAGE
    return caught.value.text


def test_an_orchestrator_and_a_service_are_found_in_the_folder_that_is_named(folder: Path) -> None:
    assert isinstance(loaded("cli_shop:app", app_dir=str(folder)), Orchestrator)
    assert isinstance(loaded("cli_shop:customers", app_dir=str(folder)), Service)


def test_a_target_without_an_attribute_is_explained(folder: Path) -> None:
    assert "MODULE:ATTRIBUTE" in refusal("cli_shop", folder)


def test_a_missing_module_is_named_with_where_it_was_looked_for(folder: Path) -> None:
    text = refusal("cli_shoop:app", folder)
    assert "'cli_shoop'" in text
    assert str(folder) in text


def test_a_misspelt_attribute_gets_the_likely_one(folder: Path) -> None:
    assert "Did you mean cli_shop:customers?" in refusal("cli_shop:costumers", folder)


def test_an_attribute_of_another_kind_is_described_with_what_there_is(folder: Path) -> None:
    text = refusal("cli_shop:limits", folder)
    assert "of type dict, not an Orchestrator or a Service" in text
    assert "app (Orchestrator), customers (Service)" in text


def test_a_module_that_raises_is_told_from_one_that_is_missing(folder: Path) -> None:
    text = refusal("cli_broken:app", folder)
    assert "importing 'cli_broken' raised RuntimeError: no licence" in text
    assert "cli_broken.py:2" in text


def test_a_module_whose_own_import_is_missing_is_not_called_missing_itself(folder: Path) -> None:
    assert "needs a module that is not there: 'a_package_nobody_has'" in refusal("cli_needy:app", folder)


def test_sagas_are_asked_of_an_orchestrator_and_not_of_a_service(folder: Path) -> None:
    with pytest.raises(CommandError, match="is a Service"):
        loaded_app("cli_shop:customers", app_dir=str(folder))


def test_without_any_app_the_ways_to_name_one_are_told() -> None:
    with pytest.raises(CommandError, match=r"--app MODULE.*ORCHESTRATOR_APP.*saga\.toml"):
        loaded_app("")
