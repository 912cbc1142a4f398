"""Programs as users run them: processes of their own, in a folder and an environment of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from tests.support.processes import clean_up_done, kill_tree, leave_nothing_behind

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
T = TypeVar("T")


def eventually(look: Callable[[], T], *, within: float = 90, because: Callable[[], str] = str) -> T:
    """Look again and again until there is something, and return it; fail with `because()` when time is up."""
    ends = time.monotonic() + within
    while not (found := look()):
        if time.monotonic() > ends:
            raise AssertionError(f"not within {within:g} s: {because() or look}")
        time.sleep(0.02)
    return found


async def until(holds: Callable[[], Awaitable[bool]], *, within: float = 90) -> None:
    """Look again and again until it holds.

    Raises:
        TimeoutError: it does not in time.
    """
    async with asyncio.timeout(within):
        while not await holds():  # noqa: ASYNC110 - another process makes it hold, which sets no event here
            await asyncio.sleep(0.02)


class Program:
    """One process; what it says goes to a file."""

    def __init__(self, name: str, process: subprocess.Popen[str], said_in: Path) -> None:
        self.name, self.process, self._said_in = name, process, said_in

    @property
    def said(self) -> str:
        """All it has said so far."""
        return self._said_in.read_text(errors="replace")

    def wait_until_it_says(self, text: str, *, within: float = 90) -> None:
        """Wait until the text is among what it has said; fails at once when the process has ended without."""

        def look() -> bool:
            ended = self.process.poll() is not None
            if text in self.said:
                return True
            if ended:
                raise AssertionError(f"{self.name} ended with {self.process.returncode}: {self.said[-3000:]}")
            return False

        eventually(look, within=within, because=lambda: f"{self.name} did not say {text!r}: {self.said[-3000:]}")

    def type(self, line: str) -> None:
        """Give it a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def end_of_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def interrupt(self) -> None:
        """Ask it to end, as a process manager does."""
        self.process.send_signal(signal.SIGTERM)

    def result(self, *, within: float = 150) -> int:
        """Wait for its end and return its exit status."""
        return self.process.wait(timeout=within)

    def kill(self) -> None:
        """SIGKILL it and all it has started, and wait until they are gone; nothing happens when it has ended."""
        if self.process.poll() is None:
            kill_tree(self.process.pid)
            self.process.wait(timeout=10)
        clean_up_done(pid=self.process.pid)


class Programs:
    """Starts programs in a folder of their own; those that still run are killed at the end, and the folder goes.

    They find the project's packages and the examples, and no `.env` or `saga.toml`.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._started: list[Program] = []

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="sagasmith-")
        self.folder = Path(self._temporary.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for program in self._started:
            program.kill()
        self._temporary.cleanup()

    def start(self, *command: str, name: str = "", **environment: str) -> Program:
        """Start a command; more variables for this one may follow."""
        name = name or command[-1]
        log = self.folder / f"{len(self._started)}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=self._complete(environment),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
        leave_nothing_behind(pid=process.pid, directory=self.folder)
        program = Program(name, process, log)
        self._started.append(program)
        return program

    def python(self, module: str, *arguments: str, **environment: str) -> Program:
        """Start `python -m module`."""
        return self.start(sys.executable, "-m", module, *arguments, name=module, **environment)

    def saga(self, *arguments: str, **environment: str) -> Program:
        """Start `saga`, the program."""
        return self.start(sys.executable, "-m", "orchestrator", *arguments, name=" ".join(arguments), **environment)

    def done(self, program: Program, *, within: float = 150) -> str:
        """Wait until a program has succeeded and return what it said."""
        if program.result(within=within) != 0:
            raise AssertionError(f"{program.name} ended with {program.process.returncode}: {program.said[-3000:]}")
        return program.said

    def tails(self, characters: int = 1500) -> str:
        """The end of what each has said, for a failing test."""
        return "\n".join(f"--- {program.name}\n{program.said[-characters:]}" for program in self._started)

    def _complete(self, more: Mapping[str, str]) -> dict[str, str]:
        foreign: Sequence[str] = ("ORCHESTRATOR_", "MESSAGING_", "SHOP_")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(tuple(foreign))}
        path = os.pathsep.join([str(ROOT), str(EXAMPLES)])
        return {**inherited, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self._environment, **more}
