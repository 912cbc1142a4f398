"""On a terminal: what others wrote stays text, and what is to be copied fits on a line of 80."""

from __future__ import annotations

import io
import json
import logging
import re
import sqlite3
from contextlib import closing

import pytest

from messaging.printable import LineFormatter
from orchestrator.cli.logs import JsonFormatter, TextFormatter
from tests.unit.cli.conftest import Shell
from tests.unit.cli.test_surveys import ended

KEY = "0198c0de-0000-7000-8000-000000000001"
EVIL = "\x1b[2J\x1b]0;owned\x07\r\x9b31m\u202egnihton\nsaga: all is well"
STEERING = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture
def evil(working_shell: Shell) -> tuple[Shell, str]:
    """A saga whose key its caller chose, and whose error its participant wrote."""
    saga_id = ended(working_shell, "refused")
    with closing(sqlite3.connect(working_shell.folder / "saga.db")) as database, database:
        for table, error, its_id in (("saga_instance", "error_text", "id"), ("saga_step", "error_text", "saga_id")):
            database.execute(f"UPDATE {table} SET {error} = ? WHERE {its_id} = ?", (EVIL, saga_id))
        database.execute("UPDATE saga_instance SET business_key = ? WHERE id = ?", (EVIL, saga_id))
        database.execute("UPDATE saga_history SET text = ? WHERE saga_id = ?", (EVIL, saga_id))
    return working_shell, saga_id


@pytest.mark.parametrize("coloured", [False, True], ids=["plain", "coloured"])
@pytest.mark.parametrize(
    "command",
    [
        "list",
        "show ID",
        "why ID",
        "history ID",
        "watch ID",
        "failures --all",
        "cancel ID --reason r --dry-run",
        "cancel ID --reason r",
        "list --json",
        "show ID --json",
        "history ID --json",
    ],
)
def test_what_others_wrote_steers_no_terminal(
    command: str, coloured: bool, evil: tuple[Shell, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shell, saga_id = evil
    if coloured:
        monkeypatch.setenv("FORCE_COLOR", "1")

    answer = shell(*command.replace("ID", saga_id).split())

    told = COLOURS.sub("", answer.out + answer.err)
    assert not STEERING.search(told)
    assert "owned" in told or command == "cancel ID --reason r"


def test_programs_are_told_it_as_it_is(evil: tuple[Shell, str]) -> None:
    shell, saga_id = evil

    assert json.loads(shell("list", "--json").out)["business_key"] == EVIL
    assert shell("show", saga_id, "--json").json["saga"]["error_text"] == EVIL


def test_a_table_has_one_line_for_each_row_where_there_is_no_terminal(evil: tuple[Shell, str]) -> None:
    shell, saga_id = evil

    assert [line.split()[0] for line in shell("list").out.splitlines()] == ["id", saga_id]


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("list", ["paint-wall", KEY, "compensated", "Painting:", "paint-refused:"]),
        ("failures --all", ["paint-wall", "Painting", "paint-refused:"]),
        ("show ID", ["Painting", "refused", "painter", "paint-refused:"]),
        ("stats --steps", ["paint-wall", "Painting", "longest"]),
    ],
)
def test_80_columns_are_enough_for_names_and_ids_to_stay_whole(
    command: str, words: list[str], working_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = ended(working_shell, "refused", "--key", KEY)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")

    lines = COLOURS.sub("", working_shell(*command.replace("ID", saga_id).split()).out).splitlines()

    told = {word for line in lines for word in line.split()}
    assert {*words, *(() if command.startswith("stats") else (saga_id,))} <= told
    assert max(len(line) for line in lines if not line.startswith("  started ")) <= 80


@pytest.mark.parametrize("command", ["list", "retry", "purge"])
def test_80_columns_are_enough_for_the_words_of_a_help(
    command: str, bare_shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = bare_shell(command, "--help").out
    assert "compensated_with_exceptions" in told and max(map(len, told.splitlines())) <= 80


def logged(formatter: logging.Formatter, message: str) -> str:
    written, handler = io.StringIO(), logging.StreamHandler()
    handler.setStream(written)
    handler.setFormatter(formatter)
    record = logging.LogRecord("shop", logging.WARNING, __file__, 1, message, (), None)
    record.ids = ""
    handler.handle(record)
    return written.getvalue()


@pytest.mark.parametrize("formatter", [TextFormatter(), LineFormatter("%(message)s"), JsonFormatter()])
def test_nothing_in_a_line_of_the_log_looks_like_another(formatter: logging.Formatter) -> None:
    first, *more = logged(formatter, f"Handling {EVIL} raised").splitlines()

    assert not STEERING.search(first + "".join(more))
    assert all(line.startswith("  ") for line in more)
