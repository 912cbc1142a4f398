"""The wheel of this tree, and an environment that has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.installed import built, environment_with, made_once
from tests.support.programs import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return made_once(tmp_path_factory, "wheel", lambda folder: built(ROOT, folder))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with nothing but the wheel and what it depends on, as locked."""
    return made_once(tmp_path_factory, "installed", lambda folder: environment_with(wheel, folder))
