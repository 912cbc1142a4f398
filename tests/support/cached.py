"""What tests install for peers and judges of ours: once, in the user's cache, outside this tree.

Each has an environment of its own, since peers pin other versions of what we use. The first run needs the registries.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.node import NodeMissing, node_modules_for
from tests.support.services import in_ci


def python_with(*requirements: str) -> Path:
    """The interpreter of an environment that has these packages and nothing else, pinned as `name==1.2.3`."""
    with _folder("python", sys.version, *requirements) as folder:
        programs = folder / "bin"
        if not (folder / "done").exists():
            # With our own pip, and compiled when they are first run: that is half the time.
            venv.create(folder, clear=True)
            pip = (sys.executable, "-m", "pip", "--python", programs / "python")
            _run(*pip, "install", "--quiet", "--no-compile", *requirements)
            (folder / "done").touch()
    return programs / "python"


def node_with(package: str, version: str) -> dict[str, str]:
    """The environment variables with which Node finds this version of a package."""
    with _folder("node", package, version) as folder:
        manifest = folder / "package.json"
        if not manifest.exists():
            manifest.write_text(f'{{"name": "cached", "private": true, "dependencies": {{"{package}": "{version}"}}}}')
        try:
            return node_modules_for(folder)
        except NodeMissing as missing:
            _missing(str(missing))
            raise


@contextmanager
def _folder(*name: str) -> Iterator[Path]:
    """A folder for what is so named, held by this process alone: another may be installing the same."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sagasmith-tests"
    folder = cache / f"{name[0]}-{hashlib.sha256(repr(name).encode()).hexdigest()[:16]}"
    folder.mkdir(parents=True, exist_ok=True)
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        _missing(f"{command[-1]} could not be installed: {done.stdout[-1500:].strip()}")


def _missing(reason: str) -> None:
    """Skip at home, fail where everything is expected."""
    if in_ci():
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
