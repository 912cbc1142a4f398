"""Wheels, and environments that have nothing but what is installed in them."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.programs import ROOT

_STRANGERS = ("PYTHONPATH", "VIRTUAL_ENV", "ORCHESTRATOR_", "MESSAGING_")


def own_environment(**more: str) -> dict[str, str]:
    """Variables that show neither this tree nor the settings of whoever runs the tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_STRANGERS)} | more


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed, in an environment of its own; returns what it said."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=own_environment(**environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def built(source: Path, folder: Path) -> Path:
    """The wheel of a source tree, built into a folder that has no other."""
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], Path]) -> Path:
    """What `make` returns for an empty folder: made once in a run, however many processes the tests run in."""
    base = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    made = base / f"{name}.made"
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            (base / name).mkdir()
            made.write_text(str(make(base / name)))
    return Path(made.read_text())


def environment_with(wheel: Path, folder: Path) -> Path:
    """The folder of programs of a new environment with a wheel and what it depends on, as locked."""
    venv.create(folder)
    # Without their hashes: pip would ask for one of the wheel as well.
    locked = (ROOT / "requirements.lock").read_text()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(re.findall(r"^[a-z0-9][^\\\n]*", locked, flags=re.MULTILINE)))
    install(folder / "bin", "-c", constraints, wheel)
    return folder / "bin"


def install(programs: Path, *what: str | Path) -> None:
    """Install into an environment with the pip of ours: its own would take longer to come than the rest."""
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", "--quiet", *what, cwd=programs)


def copy_of(programs: Path, folder: Path) -> Path:
    """The folder of programs of another environment that has the same installed, and shares nothing with it."""
    venv.create(folder)
    (packages,) = (programs.parent / "lib").glob("python*/site-packages")
    target = folder / packages.relative_to(programs.parent)
    shutil.copytree(packages, target, copy_function=_linked, dirs_exist_ok=True)
    return folder / "bin"


def _linked(source: str, target: str) -> None:
    """Files of an installation are replaced and never written to, so both may be the same."""
    os.link(source, target)
