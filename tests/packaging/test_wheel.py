"""The wheel as somebody else gets it: installed in an empty environment, away from this tree."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with nothing but the wheel and what it depends on, as locked."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    # Without their hashes: pip would ask for one of our wheel as well.
    locked = (ROOT / "requirements.lock").read_text()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9][^\\\n]*", locked, flags=re.MULTILINE)))
    programs = environment / "bin"
    _run(programs / "python", "-m", "pip", "install", "--quiet", "-c", constraints, wheel, cwd=folder)
    return programs


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
    assert "migrate" in _run(installed / "saga", "--help", cwd=tmp_path)


@pytest.mark.timeout(240)
def test_the_installed_command_creates_the_schema_in_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    database = tmp_path / "sagas.db"
    _run(installed / "saga", "migrate", cwd=tmp_path, database_url=f"sqlite+aiosqlite:///{database}")

    with sqlite3.connect(database) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"saga_instance", "saga_step", "message_outbox"} <= tables


def _run(*command: str | Path, cwd: Path, database_url: str | None = None) -> str:
    """Run a command that must succeed, seeing neither this tree nor settings of whoever runs the tests."""
    strangers = ("PYTHONPATH", "VIRTUAL_ENV", "ORCHESTRATOR_", "MESSAGING_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(strangers)}
    if database_url is not None:
        environment["ORCHESTRATOR_DATABASE_URL"] = database_url
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
