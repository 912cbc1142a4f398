"""Dead letters from a shell, where they are rows: SQLite, and messages in memory."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import sqlite3
import time
from collections.abc import Callable

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from messaging.dead_letter_notes import LOST_HEADERS, Notes
from messaging.envelope import Envelope, to_queue
from messaging.sql.dead_letters import SqlDeadLetters
from messaging.sql.writing import write_outgoing
from messaging.transport import Outgoing
from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell

ID = "0198c0de-0000-7000-8000-000000000001"


def died(shell: Shell, envelope: Envelope, *, queue: str = "painter", reason: str = "no use", detail: str = "") -> None:
    """Have a message be a dead letter."""
    notes = Notes(reason, detail, 3, queue, "events", "walls.paint").headers()
    letter = Envelope(envelope.message_id, envelope.body, envelope.type, headers={**envelope.headers, **notes})

    async def keep() -> None:
        engine = create_async_engine(shell.url)
        await SqlDeadLetters(async_sessionmaker(engine)).keep(queue, letter)
        await engine.dispose()

    asyncio.run(keep())


def sent(shell: Shell, envelope: Envelope, queue: str) -> None:
    """Have a message leave through the outbox."""
    engine = create_engine(shell.url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        write_outgoing(connection, [Outgoing(envelope, to_queue(queue))])
    engine.dispose()


def until(look: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not look():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.mark.parametrize("command", ["list", "show", "replay", "purge"])
def test_each_command_explains_itself_with_examples(bare_shell: Shell, command: str) -> None:
    assert f"saga dlq {command}" in bare_shell("dlq", command, "--help").out.partition("Examples:")[2]


def test_a_list_tells_queue_id_type_reason_and_attempts(shell: Shell) -> None:
    died(shell, Envelope(ID, b"{}", "walls.paint"), reason="handler-raised: KeyError: 'blue'")

    said = shell("dlq", "list")
    (line,) = map(json.loads, shell("dlq", "list", "--json").out.splitlines())
    (row,) = csv.DictReader(io.StringIO(shell("dlq", "list", "--csv").out))

    assert said.out.splitlines()[1].split()[:3] == ["painter", ID, "walls.paint"]
    assert "handler-raised: KeyError: 'blue'" in said.out
    assert (line["queue"], line["id"], line["type"], line["attempts"]) == ("painter", ID, "walls.paint", 3)
    assert row == {name: str(value) for name, value in line.items()}
    assert line["died_at"][4] == "-" and len(line["died_at"]) == len("2031-02-03 04:05:06.000789")


def test_each_filter_narrows_a_list_down(shell: Shell) -> None:
    died(shell, Envelope("m-1", b"", "walls.paint"))
    died(shell, Envelope("m-2", b"", "walls.clean"), reason="Unreadable")
    died(shell, Envelope("m-3", b"", "walls.paint"), queue="cleaner")

    def listed(*filters: str) -> list[str]:
        return [json.loads(line)["id"] for line in shell("dlq", "list", "--json", *filters).out.splitlines()]

    assert listed() == ["m-3", "m-1", "m-2"]  # by queue
    assert listed("--queue", "painter") == ["m-1", "m-2"]
    assert listed("-q", "painter", "-q", "cleaner", "--type", "walls.paint") == ["m-1", "m-3"]
    assert listed("--reason", "unread") == ["m-2"]
    assert listed("--id", "m-1", "--id", "m-3") == ["m-3", "m-1"]
    assert listed("--older-than", "1h") == []
    assert listed("--limit", "2") == ["m-3", "m-1"]
    assert "more than 2" in shell("dlq", "list", "--limit", "2").err
    assert shell("dlq", "list", "--older-than", "1h").err == "No dead letters match.\n"
    assert shell("dlq", "list", "--older-than", "soon").code == exits.USAGE


def test_a_letter_is_shown_whole_and_cannot_steer_the_terminal(shell: Shell) -> None:
    body = '{"colour": "ü"}\x1b[2J'.encode()
    died(shell, Envelope(ID, body, "walls.paint", headers={"saga-id": "s-1"}), detail="Traceback\n  KeyError: 'blue'\n")

    said = shell("dlq", "show", ID)

    assert said.code == 0
    assert f"dead letter {ID}\n" in said.out
    for fact in ("no use", "exchange 'events', key 'walls.paint'", "saga-id  s-1", '{"colour": "ü"}\\x1b[2J'):
        assert fact in said.out
    assert "    KeyError: 'blue'" in said.out
    assert f"saga dlq replay --queue painter --id {ID}" in said.out
    shown = shell("dlq", "show", ID, "--json").json
    assert (shown["body"], shown["body_hex"], shown["headers"]) == (body.decode(), None, {"saga-id": "s-1"})


def test_a_body_that_is_no_text_is_shown_in_hexadecimal(shell: Shell) -> None:
    died(shell, Envelope(ID, b"\xff\x00ok" + b"x" * 300))

    assert "0000  ff 00 6f 6b 78" in shell("dlq", "show", ID).out
    assert "48 bytes more" in shell("dlq", "show", ID).out
    assert shell("dlq", "show", ID, "--json").json["body_hex"].startswith("ff006f6b78")


def test_an_unknown_id_is_not_found(shell: Shell) -> None:
    for command in ("show m-1", "replay --id m-1", "purge --id m-1 --yes", "replay --id m-1 --dry-run"):
        answer = shell("dlq", *command.split())
        assert answer.code == exits.NOT_FOUND and "saga dlq list" in answer.err, command


@pytest.mark.parametrize("command", ["replay", "purge"])
def test_everything_is_meant_only_if_that_is_said(shell: Shell, command: str) -> None:
    died(shell, Envelope(ID, b"{}"))

    assert shell("dlq", command).code == exits.USAGE
    assert shell("dlq", command, "--all", "--dry-run").out == f"would {command}  painter  {ID}\n"
    assert ID in shell("dlq", "list").out


def test_a_purge_asks_and_throws_away_only_what_it_told_of(shell: Shell) -> None:
    died(shell, Envelope("m-1", b"{}"))
    died(shell, Envelope("m-2", b"{}"), queue="cleaner")

    refused = shell("dlq", "purge", "--queue", "painter", typed="n\n")
    unanswered = shell("dlq", "purge", "--queue", "painter", typed="")
    assert (refused.code, unanswered.code) == (exits.FAILED, exits.FAILED)
    assert "Throw away 1 dead letter of painter for good?" in refused.err and "say --yes" in unanswered.err
    assert len(shell("dlq", "list", "--json").out.splitlines()) == 2

    assert shell("dlq", "purge", "--queue", "painter", typed="y\n").out.endswith("purged  painter  m-1\n")
    assert shell("dlq", "purge", "--all", "--yes", "--json").json["id"] == "m-2"
    assert shell("dlq", "list").out == ""


def test_what_cannot_be_replayed_stays_and_the_others_go(shell: Shell) -> None:
    died(shell, Envelope("m-1", b"\xff"))
    died(shell, Envelope("m-2", b"{}", headers={LOST_HEADERS: 7}))
    died(shell, Envelope("m-3", b"{}"))

    answer = shell("dlq", "replay", "--queue", "painter")

    assert answer.code == exits.FAILED
    assert sorted(answer.out.splitlines()) == ["replayed  painter  m-3", "stays  painter  m-1", "stays  painter  m-2"]
    assert "not UTF-8" in answer.err and "lost 7 headers" in answer.err and "replayed: 1, stay: 2" in answer.err


def test_a_dead_letter_of_an_embedded_service_outlives_its_process_and_is_replayed(shell: Shell) -> None:
    from tests.unit.cli.conftest import engine_running

    unusable = Envelope(ID, b'{"colour": "no such field"}', "no-such-command")
    with engine_running(shell):
        sent(shell, unusable, "painter")
        until(lambda: ID in shell("dlq", "list", "--queue", "painter").out, "it dies")

    shown = shell("dlq", "show", ID, "--json").json
    assert "no-such-command" in shown["reason"] and shown["body"] == unusable.body.decode()
    assert shell("dlq", "replay", "--id", ID).out == f"replayed  painter  {ID}\n"
    assert shell("dlq", "list").out == ""

    with engine_running(shell):
        until(lambda: ID in shell("dlq", "list").out, "it is sent again, and dies again")


def test_doctor_counts_dead_letters_by_queue_and_says_how_to_look_at_them(shell: Shell) -> None:
    assert "no dead letters in any queue" in shell("doctor").out
    died(shell, Envelope("m-1", b"{}"))
    died(shell, Envelope("m-2", b"{}"))

    answer = shell("doctor")

    assert answer.code == 0
    assert "warn letters   dead letters of queue painter: 2" in answer.out
    assert "→ saga dlq list --queue painter" in answer.out


def test_doctor_tells_how_long_the_outbox_waits(shell: Shell) -> None:
    assert "the outbox is up to date: 0 messages in it" in shell("doctor").out
    sent(shell, Envelope("m-1", b"{}"), "painter")
    with sqlite3.connect(shell.folder / "saga.db") as connection:
        connection.execute("UPDATE message_outbox SET created_at = '2026-01-01 00:00:00.000000'")

    assert "messages in the outbox: 1, the oldest for" in shell("doctor").out
