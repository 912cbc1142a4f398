"""The command that runs tests with services: statuses, missing services, policy files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import debian
from tests.support.node import node_modules_for, node_program
from tests.support.services import AMQP, POSTGRES, REDIS, ServiceMissing, locate

ROOT = Path(__file__).parents[2]


def test_the_command_sees_the_addresses_and_its_status_is_handed_on(
    amqp_url: str, postgres_url: str, redis_url: str
) -> None:
    located = {AMQP.variable: amqp_url, POSTGRES.variable: postgres_url, REDIS.variable: redis_url}
    program = f"import os, sys; sys.exit(7 if {located!r}.items() <= dict(os.environ).items() else 1)"
    run = subprocess.run(
        [sys.executable, "-m", "tests.support.services", "--", sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **located},
        check=False,
    )
    assert run.returncode == 7


def test_a_named_service_that_does_not_answer_is_an_error_that_names_the_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(REDIS.variable, "redis://127.0.0.1:1/0")
    with pytest.raises(ServiceMissing, match=r"SAGASMITH_TEST_REDIS_URL is set, but .*refused"):
        locate(REDIS)


def test_a_port_with_another_service_behind_it_is_not_taken_for_ours(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    somewhere_else = redis_url.partition("://")[2].partition("/")[0]
    monkeypatch.setenv(AMQP.variable, f"amqp://{somewhere_else}/")
    with pytest.raises(ServiceMissing, match="RabbitMQ"):
        locate(AMQP)


@pytest.mark.parametrize("before", [None, "#!/bin/sh\nexit 0\n"])
def test_service_starts_are_denied_during_an_install_and_the_policy_is_left_as_it_was(
    before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, set_aside = tmp_path / "policy-rc.d", tmp_path / "set-aside"
    monkeypatch.setattr(debian, "_POLICY", policy)
    monkeypatch.setattr(debian, "_SET_ASIDE", set_aside)
    during: list[int] = []
    monkeypatch.setattr(debian, "_apt_get", lambda *_: during.append(subprocess.run([policy], check=False).returncode))
    if before is not None:
        policy.write_text(before)

    debian.install(["nothing"])

    assert set(during) == {101}
    assert (policy.read_text() if policy.exists() else None) == before
    assert not set_aside.exists()


def test_node_comes_with_the_environment(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "empty", "private": true}')
    environment = node_modules_for(tmp_path)
    run = subprocess.run(["node", "-p", "1 + 1"], env=environment, stdout=subprocess.PIPE, text=True, check=True)
    assert run.stdout.strip() == "2"
    assert node_program().exists()
