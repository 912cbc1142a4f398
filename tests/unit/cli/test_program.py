"""The program as a whole: help, version, migrations, settings, exit codes."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys

import pytest

from orchestrator.cli import exits
from orchestrator.words import duration
from tests.unit.cli import walls
from tests.unit.cli.conftest import Shell

COMMANDS = [
    "demo",
    "migrate",
    "run",
    "relay",
    "doctor",
    "schema",
    "asyncapi",
    "start",
    "list",
    "show",
    "watch",
    "cancel",
    "retry",
    "pause",
    "resume",
    "skip",
    "resolve",
    "compensate",
    "abandon",
    "complete",
]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself_with_examples(command: str, bare_shell: Shell) -> None:
    assert command in bare_shell("--help").out
    told = bare_shell(command, "--help")
    assert told.code == 0
    assert f"saga {command}" in told.out.partition("Examples:")[2]


def test_the_version_is_told(bare_shell: Shell) -> None:
    assert bare_shell("--version").out.startswith("sagasmith 0.")


def test_a_database_that_is_behind_is_told_with_the_remedy_and_then_brought_up_to_date(bare_shell: Shell) -> None:
    sqlite3.connect(bare_shell.folder / "saga.db").close()
    (bare_shell.folder / "saga.db").touch()
    behind = bare_shell("migrate", "--check")
    assert behind.code == exits.FAILED
    assert behind.err.startswith("saga: Schema is ") and "Run: saga migrate" in behind.err

    assert bare_shell("list").err.rstrip().endswith("Run: saga migrate")
    assert bare_shell("migrate").code == 0
    assert bare_shell("migrate", "--check").code == 0
    assert bare_shell("migrate").out.rstrip().endswith("is up to date.")


def test_a_participants_database_gets_the_tables_of_the_bus_alone(bare_shell: Shell) -> None:
    assert bare_shell("migrate", "--only", "messaging").code == 0

    names = sqlite3.connect(bare_shell.folder / "saga.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert ("message_inbox",) in names and ("saga_instance",) not in names


def test_the_sql_of_a_new_database_is_printed_and_none_is_touched(bare_shell: Shell) -> None:
    answer = bare_shell("migrate", "--sql")

    assert answer.code == 0 and "CREATE TABLE saga_instance" in answer.out
    assert not (bare_shell.folder / "saga.db").exists()


def test_reading_before_migrating_creates_no_file_and_names_the_remedy(bare_shell: Shell) -> None:
    answer = bare_shell("list")

    assert answer.code == exits.FAILED and "Run: saga migrate" in answer.err
    assert not (bare_shell.folder / "saga.db").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("start", "paint-wall", "-d", '{"name": "n"}'),
        ("migrate", "--check"),
        ("doctor",),
        ("run", f"{walls.__name__}:app"),
        ("relay", "--broker-url", "amqp://127.0.0.1:1/"),
    ],
)
def test_a_database_that_is_away_is_exit_code_5_and_shows_no_password(
    arguments: tuple[str, ...], bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORCHESTRATOR_DATABASE_URL", "postgresql+asyncpg://shop:secret@127.0.0.1:1/sagas")
    answer = bare_shell(*arguments)

    assert answer.code == exits.UNREACHABLE
    assert "shop:***@127.0.0.1:1/sagas cannot be reached" in answer.out + answer.err
    assert "secret" not in answer.out + answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ORCHESTRATOR_BATCH", "many"),
        ("ORCHESTRATOR_DATABASE_URL", "mysql://secret@host/db"),
        ("ORCHESTRATOR_DATABASE_URL", "secret"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_and_its_value_is_not(
    variable: str, value: str, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    answer = bare_shell("list")

    assert answer.code == exits.USAGE
    assert variable in answer.err and "secret" not in answer.err


def test_a_relay_needs_the_tables_of_the_bus_and_a_broker_that_others_reach(bare_shell: Shell) -> None:
    alone = bare_shell("relay")
    assert alone.code == exits.USAGE and "memory:// is this process alone" in alone.err

    sqlite3.connect(bare_shell.folder / "saga.db").close()
    (bare_shell.folder / "saga.db").touch()
    behind = bare_shell("relay", "--broker-url", "amqp://127.0.0.1:1/")
    assert behind.code == exits.FAILED and "Run: saga migrate --only messaging" in behind.err


def test_a_healthy_installation_is_told_line_by_line(shell: Shell) -> None:
    answer = shell("doctor")

    assert answer.code == 0, answer.out
    assert "ok   schema    up to date" in answer.out
    assert "ok   alarms    none of 7 is up" in answer.out
    assert "fail" not in answer.out
    assert {finding["subject"] for finding in shell("doctor", "--json").json} >= {"database", "schema", "broker"}


def test_doctor_tells_of_batches_for_queues_that_nobody_knows(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "batches go to" not in shell("doctor").out
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "painter,orchestrator.main.replies")
    assert "ok   broker    batches go to painter, orchestrator.main.replies" in shell("doctor").out
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "painter,panter")

    answer = shell("doctor")

    assert answer.code == 0
    assert "warn broker    MESSAGING_COALESCE_TO names panter: no saga here sends commands there" in answer.out
    assert "→ correct it; known are orchestrator.main.replies, " in answer.out


def test_doctor_is_told_where_the_sagas_are_as_other_commands_are(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ORCHESTRATOR_APP")
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "painter")

    assert "batches go to" not in shell("doctor").out
    assert "batches go to painter" in shell("doctor", "--app", "tests.unit.cli.walls:app").out


def test_doctor_tells_of_alarms_that_are_up(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.start("well")
    monkeypatch.setenv("ORCHESTRATOR_OVERDUE_ALARM_SECONDS", "0.000001")

    answer = shell("doctor")

    assert answer.code == 0
    assert "warn alarms    overdue: No engine has looked at a saga that is due for" in answer.out


def test_doctor_fails_on_a_schema_that_is_missing(bare_shell: Shell) -> None:
    answer = bare_shell("doctor")

    assert answer.code == exits.FAILED
    assert "→ saga migrate" in answer.out


def test_a_bad_target_is_wrong_usage(bare_shell: Shell) -> None:
    answer = bare_shell("run", "no_such_module:app")

    assert answer.code == exits.USAGE
    assert "there is no module 'no_such_module' (target no_such_module:app)" in answer.err


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0421, "42 ms"), (3.14, "3.1 s"), (250, "4 min 10 s"), (7500, "2 h 5 min"), (183600, "2 d 3 h"), (-1, "0 ms")],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    from datetime import timedelta

    assert duration(timedelta(seconds=seconds)) == words


def test_a_reader_that_has_gone_ends_a_command_without_a_word() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = (sys.executable, "-m", "orchestrator", "migrate", "--sql")
    with open(writing, "wb") as pipe:
        ended = subprocess.run(command, stdout=pipe, stderr=subprocess.PIPE, text=True, timeout=60)

    assert (ended.returncode, ended.stderr) == (1, "")
