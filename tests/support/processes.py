"""Processes that a test starts: killed as a whole tree, and never left behind.

Run as a script this is the watchdog behind `leave_nothing_behind`; it needs the standard library only.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

_watchdog: IO[str] | None = None


def process_tree(root: int) -> list[int]:
    """The ids of a process and of all that descend from it, parents first; empty when it is gone."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:  # ended while we looked
            continue
        if fields[0] not in ("Z", "X"):
            children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    alive = {pid for siblings in children.values() for pid in siblings}
    tree = [root]
    for pid in tree:  # grows as we go
        tree.extend(children.get(pid, ()))
    return [pid for pid in tree if pid in alive]


def signal_tree(root: int, number: signal.Signals) -> list[int]:
    """Send a signal to a process and all its descendants; returns the ids it was sent to.

    By tree and not by process group: PostgreSQL's backends and Erlang's helpers each lead a group of their own.
    """
    tree = process_tree(root)
    for pid in tree:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
    return tree


def kill_tree(root: int, *, timeout_seconds: float = 10) -> None:
    """SIGKILL a process and all its descendants, and wait until none of them runs.

    Raises:
        TimeoutError: one of them still runs after the timeout (it hangs in the kernel).
    """
    remaining = signal_tree(root, signal.SIGKILL)
    deadline = time.monotonic() + timeout_seconds
    while remaining := [pid for pid in remaining if process_is_alive(pid)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes {remaining} survived SIGKILL for {timeout_seconds} s")
        time.sleep(0.01)


def process_is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and has not been waited for does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def leave_nothing_behind(*, pid: int, directory: Path) -> None:
    """Have a process's tree killed and a directory removed when this process ends in whatever way.

    A watchdog in a session of its own waits for the end of a pipe that only this process holds, so it acts
    after a SIGKILL too. Call `clean_up_done` for what has been cleaned up in the ordinary way.
    """
    _tell_watchdog(f"add {pid} {directory}")


def clean_up_done(*, pid: int) -> None:
    """Take back `leave_nothing_behind`, before the id can be given to another process."""
    _tell_watchdog(f"drop {pid}")


def _tell_watchdog(line: str) -> None:
    global _watchdog
    if _watchdog is None:
        command = [sys.executable, __file__]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        _watchdog = process.stdin
    assert _watchdog is not None
    print(line, file=_watchdog, flush=True)


def _watch(orders: IO[str]) -> None:
    watched: dict[int, Path] = {}
    for line in orders:
        verb, pid, *directory = line.rstrip("\n").split(" ", 2)
        if verb == "add":
            watched[int(pid)] = Path(directory[0])
        else:
            watched.pop(int(pid), None)
    for root, path in watched.items():
        signal_tree(root, signal.SIGCONT)
        kill_tree(root)
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    _watch(sys.stdin)
