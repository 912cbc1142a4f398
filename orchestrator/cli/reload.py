"""`saga run --reload`: a child process that is started again when code changes. For development."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import typer

_LOOK_EVERY_SECONDS: Final = 0.5
_PASSED_OVER: Final = {"__pycache__", "node_modules", "build", "dist"}


def run_reloading(arguments: list[str], app_dir: str) -> int:
    """Run `saga` with these arguments but `--reload`, again and again; return the exit code.

    Files are compared by their times twice a second: no watcher to install, and it works on every file
    system. A child that ended by itself is started again with the next change.
    """
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stop.set())
    command = [sys.executable, "-m", "orchestrator", *(a for a in arguments if a != "--reload")]
    folders = {Path.cwd(), Path(app_dir).resolve()}
    typer.echo(f"Watching *.py below {', '.join(sorted(map(str, folders)))}.", err=True)
    while True:
        seen = snapshot(folders)
        # A session of its own: Ctrl-C reaches the child once, through us.
        child = subprocess.Popen(command, start_new_session=True)
        changed = _changed(seen, folders, child, stop)
        code = _ended(child)
        if changed is None:
            return code
        typer.echo(f"{changed} has changed; starting again.", err=True)


def snapshot(folders: set[Path]) -> Mapping[Path, int]:
    """The Python files below some folders, and when each was changed."""
    return {file: changed for folder in folders for file, changed in _files(folder)}


def _files(folder: Path) -> Iterator[tuple[Path, int]]:
    for where, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in _PASSED_OVER]
        for name in names:
            if name.endswith(".py"):
                file = Path(where, name)
                try:
                    yield file, file.stat().st_mtime_ns
                except OSError:  # gone since it was listed
                    continue


def difference(before: Mapping[Path, int], after: Mapping[Path, int]) -> Path | None:
    """A file that was changed, added or removed; None if none was."""
    for file in sorted(before.keys() | after.keys()):
        if before.get(file) != after.get(file):
            return file
    return None


def _changed(
    seen: Mapping[Path, int], folders: set[Path], child: subprocess.Popen[bytes], stop: threading.Event
) -> Path | None:
    """Wait for a change; None if we were told to stop."""
    told = False
    while not stop.wait(_LOOK_EVERY_SECONDS):
        if child.poll() is not None and not told:
            told = True
            typer.echo(f"It ended with exit code {child.returncode}; waiting for a change.", err=True)
        changed = difference(seen, snapshot(folders))
        if changed is not None:
            return changed
    return None


def _ended(child: subprocess.Popen[bytes]) -> int:
    """Have the child drain and end; it bounds that itself, a second signal ends it at once."""
    if child.poll() is None:
        child.terminate()
        try:
            return child.wait(30)
        except subprocess.TimeoutExpired:
            child.kill()
    return child.wait()
