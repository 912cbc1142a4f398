"""The wheel as somebody else gets it: installed in an empty environment, away from this tree."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.support.installed import run


def test_the_wheel_holds_both_packages_typed_the_migrations_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"messaging", "orchestrator", "sagasmith-0.1.0.dist-info"}
    assert {
        "messaging/py.typed",
        "orchestrator/py.typed",
        "orchestrator/_migrations/env.py",
        "sagasmith-0.1.0.dist-info/licenses/LICENSE",
    } <= set(names)
    assert not [name for name in names if "__pycache__" in name]


@pytest.mark.timeout(240)
def test_the_command_explains_itself_from_the_wheel_alone(installed: Path, tmp_path: Path) -> None:
    assert "migrate" in run(installed / "saga", "--help", cwd=tmp_path)


@pytest.mark.timeout(240)
def test_the_installed_command_creates_the_schema_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    database = tmp_path / "sagas.db"
    run(installed / "saga", "migrate", cwd=tmp_path, ORCHESTRATOR_DATABASE_URL=f"sqlite+aiosqlite:///{database}")

    with sqlite3.connect(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"saga_instance", "saga_step", "message_outbox"} <= tables
