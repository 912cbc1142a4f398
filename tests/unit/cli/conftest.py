"""A shell to type into, a migrated database, and engines that run beside it in a thread."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from messaging.settings import MessagingSettings
from orchestrator.app import running
from orchestrator.cli.program import app
from orchestrator.settings import OrchestratorSettings
from tests.support.databases import new_sqlite
from tests.unit.cli import walls


@dataclass(frozen=True)
class Answer:
    """What a command printed, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Shell:
    """Types commands."""

    folder: Path

    @property
    def url(self) -> str:
        return f"sqlite+aiosqlite:///{self.folder / 'saga.db'}"

    def __call__(self, *arguments: str, typed: str | None = None) -> Answer:
        root = logging.getLogger()
        handlers, level = list(root.handlers), root.level
        result = CliRunner().invoke(app, list(arguments), input=typed)
        root.handlers[:] = handlers  # those of `saga run` write to a stream that is closed by now
        root.setLevel(level)
        assert not isinstance(result.exception, AssertionError), result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    def start(self, ends: str, *more: str) -> str:
        """Start a saga that will end so, wait for it where it ends, and return its id."""
        data = json.dumps({"name": "north", "ends": ends})
        answer = self("start", "paint-wall", "--data", data, *more)
        assert answer.code == 0, answer.err
        return answer.out.split()[0]


@pytest.fixture
def bare_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in an empty folder, whose database is not there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    shell = Shell(tmp_path)
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", shell.url)
    monkeypatch.setenv("MESSAGING_BROKER_URL", "memory://")
    monkeypatch.setenv("ORCHESTRATOR_APP", f"{walls.__name__}:app")
    return shell


@pytest.fixture
def shell(bare_shell: Shell) -> Shell:
    """A shell with a migrated database; no engine runs."""
    new_sqlite(bare_shell.url)
    return bare_shell


@pytest.fixture
def working_shell(shell: Shell) -> Iterator[Shell]:
    """A shell beside which an engine and the painter work."""
    walls.ladder_is_back.clear()
    with engine_running(shell):
        yield shell


@contextmanager
def engine_running(shell: Shell) -> Iterator[None]:
    """Run the engine and the participant in a thread for as long as the block lasts."""
    started, stop = threading.Event(), threading.Event()
    failed: list[BaseException] = []

    async def work() -> None:
        settings = OrchestratorSettings.model_validate({"database_url": shell.url, "poll_seconds": 0.02})
        async with running(walls.app, walls.painter, settings=settings, messaging=MessagingSettings()):
            started.set()
            await asyncio.to_thread(stop.wait)

    def run() -> None:
        try:
            asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert started.wait(90) and not failed, failed
        yield
    finally:
        stop.set()
        thread.join(90)
    assert not thread.is_alive() and not failed, failed
