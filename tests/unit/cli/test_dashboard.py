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

    answers = asyncio.run(asked(shell, "/", "/letters", f"/sagas/{started}", "/bus"))
    first, letters, saga, bus = (answer.raise_for_status().text for answer in answers)

    assert "In flight" in first and "No message is dead" in letters and "north" in saga
    assert ">painter<" in bus and "memory://" in bus


def test_a_broker_that_is_away_is_told_beside_what_the_database_tells(shell: Shell) -> None:
    shell("start", "paint-wall", "--data", '{"name": "north"}')
    (nobody,) = free_ports(1)

    bus, letters = asyncio.run(asked(shell, "/bus", "/letters", broker_url=f"amqp://guest:secret@127.0.0.1:{nobody}/"))

    assert bus.status_code == 200 and "Every command that is due has left" in bus.text
    assert "does not answer within 2 s" in bus.text
    assert letters.status_code == 503 and "does not answer within 2 s" in letters.text
    assert "secret" not in bus.text + letters.text


async def asked(shell: Shell, *paths: str, **messaging: str) -> list[httpx.Response]:
    """What is answered there, beside the orchestrator."""
    settings = OrchestratorSettings.model_validate({"database_url": shell.url})
    (port,) = free_ports(1)
    async with (
        beside(f"127.0.0.1:{port}", settings, MessagingSettings.model_validate(messaging), walls.app),
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=90) as http,
    ):
        return await asyncio.gather(*(http.get(path) for path in paths))
