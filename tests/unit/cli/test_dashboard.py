"""`saga dashboard` and `saga run --dashboard`: where they answer, and where they refuse to."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from messaging.settings import MessagingSettings
from orchestrator.cli.dashboard import beside
from orchestrator.settings import OrchestratorSettings
from tests.support.services import free_ports
from tests.unit.cli import walls
from tests.unit.cli.conftest import Shell


def test_it_does_not_listen_for_others_where_nothing_tells_who_may_look(shell: Shell) -> None:
    answer = shell("dashboard", "--listen", "0.0.0.0:8700")

    assert answer.code == 2
    assert "DASHBOARD_LISTEN" in answer.err and "DASHBOARD_TOKEN" in answer.err


def test_a_wrong_setting_is_named(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASHBOARD_TOKEN", "short")

    answer = shell("dashboard")

    assert answer.code == 2 and "DASHBOARD_TOKEN: must have at least 16" in answer.err


def test_a_database_without_tables_is_told_with_what_to_do(bare_shell: Shell) -> None:
    answer = bare_shell("dashboard")

    assert answer.code == 1 and "saga migrate" in answer.err


def test_beside_services_alone_there_is_nothing_to_show(shell: Shell) -> None:
    answer = shell("run", f"{walls.__name__}:painter", "--dashboard", "127.0.0.1:8700")

    assert answer.code == 2 and "no Orchestrator is among the targets" in answer.err


def test_beside_an_orchestrator_it_shows_its_sagas_and_their_dead_letters(shell: Shell) -> None:
    started = shell("start", "paint-wall", "--data", '{"name": "north"}').out.split()[0]

    first, letters, saga = asyncio.run(pages(shell, "/", "/letters", f"/sagas/{started}"))

    assert "In flight" in first and "No message is dead" in letters and "north" in saga


async def pages(shell: Shell, *paths: str) -> list[str]:
    """What is answered there, beside the orchestrator."""
    settings = OrchestratorSettings.model_validate({"database_url": shell.url})
    (port,) = free_ports(1)
    async with (
        beside(f"127.0.0.1:{port}", settings, MessagingSettings(), walls.app),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90) as http,
    ):
        answers = await asyncio.gather(*(http.get(path) for path in paths))
    return [answer.raise_for_status().text for answer in answers]
