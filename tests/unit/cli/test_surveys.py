"""What went wrong, how long things take, what happened: over many sagas, and to one."""

from __future__ import annotations

import csv
import io
import json
import re
from uuid import UUID

from sqlalchemy import create_engine, text

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell


def ended(shell: Shell, how: str, *more: str) -> str:
    """A saga that went so far by itself, not well."""
    answer = shell("start", "paint-wall", "--data", json.dumps({"name": "north", "ends": how}), "--wait", *more)
    assert answer.code == exits.NOT_COMPLETED, answer.err
    return answer.out.split()[0]


def test_sagas_that_failed_alike_are_one_line_with_one_of_them(working_shell: Shell) -> None:
    ids = [ended(working_shell, "blocked") for _ in range(2)]
    refused = ended(working_shell, "refused")

    told = working_shell("failures")
    alike, turned_back = map(json.loads, working_shell("failures", "--all", "--json").out.splitlines())

    assert told.code == 0
    assert any(line.startswith("2 ") and ids[1] in line and "paint-wall" in line for line in told.out.splitlines())
    assert refused not in told.out
    assert (alike["count"], sorted(alike["saga_ids"])) == (2, sorted(ids))
    assert (turned_back["saga_ids"], turned_back["error_text"]) == ([refused], "the wall is wet")


def test_where_nothing_failed_that_is_said(shell: Shell) -> None:
    answer = shell("failures")
    assert (answer.code, answer.out, answer.err.strip()) == (0, "", "No saga is blocked.")
    assert "No saga has failed." in shell("failures", "--all").err


def test_stats_count_what_ended_and_draw_how_long_it_took(working_shell: Shell) -> None:
    for _ in range(2):
        working_shell.start("well", "--wait")

    told = working_shell("stats", "--saga", "paint-wall", "--since", "1h")
    rows = list(csv.DictReader(io.StringIO(working_shell("stats", "--steps", "--csv").out)))

    undone = working_shell.start("waiting")
    while undone not in working_shell("list", "--at", "Drying").out:
        pass
    assert working_shell("cancel", undone, "-r", "no").code == 0
    assert working_shell("watch", undone).code == 0
    assert "\npaint-wall ↩ Painting\n" in working_shell("stats", "--saga", "paint-wall", "--steps").out
    assert "p95" in told.out and "█" in told.out and "up to" in told.out
    assert {row["saga"] for row in rows} == {"paint-wall"}
    assert {row["count"] for row in rows} == {"2"}
    assert all(float(row["p50"]) <= float(row["p99"]) <= float(row["longest"]) for row in rows)


def test_stats_of_nothing_say_so(shell: Shell) -> None:
    assert "No saga has ended yet." in shell("stats").err


def test_the_history_of_a_saga_has_its_steps_and_what_operators_asked(working_shell: Shell) -> None:
    saga_id = ended(working_shell, "blocked")
    assert working_shell("abandon", saga_id, "--reason", "painted by hand").code == 0

    told = working_shell("history", saga_id)
    rows = [json.loads(line) for line in working_shell("history", saga_id, "--json").out.splitlines()]

    assert "paint-wall v1 started" in told.out
    assert "asked to abandon it (painted by hand): blocked → abandoned" in told.out
    assert [rows[0]["what"], rows[-1]["what"]] == ["started", "ended"]
    assert "asked" in {row["what"] for row in rows}
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)


def test_a_list_is_csv_for_spreadsheets(working_shell: Shell) -> None:
    saga_id = working_shell.start("well", "--key", "one, two", "--wait")

    (row,) = csv.DictReader(io.StringIO(working_shell("list", "--csv").out))

    assert (row["saga_id"], row["business_key"], row["status"], row["error_code"]) == (
        saga_id,
        "one, two",
        "completed",
        "",
    )
    both = working_shell("list", "--csv", "--json")
    assert both.code == exits.USAGE and "--json and --csv exclude each other" in both.err


def test_the_history_of_a_saga_has_what_each_step_changed_in_its_state(working_shell: Shell) -> None:
    saga_id = working_shell.start("well", "--wait")

    told = working_shell("history", saga_id, "--states")
    rows = [json.loads(line) for line in working_shell("history", saga_id, "--states", "--json").out.splitlines()]

    assert re.search(r'~ Painting +on_reply: remark: "" → "north is painted"', told.out) and not told.err
    assert [(one["step"], one["text"]) for one in rows if one["what"] == "state"] == [
        ("", 'name = "north"'),
        ("", 'ends = "well"'),
        ("", "coats = 0"),
        ("", 'remark = ""'),
        ("Painting", "on_reply: coats: 0 → 1"),
        ("Painting", 'on_reply: remark: "" → "north is painted"'),
    ]
    assert [one["what"] for one in rows if one["step"] == "Painting"][:3] == ["sent", "answered", "state"]
    assert "state" not in working_shell("history", saga_id).out


def test_states_that_are_not_there_are_told_with_what_to_do(shell: Shell) -> None:
    saga_id = shell.start("well")
    engine = create_engine(shell.url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM saga_state"))
    engine.dispose()

    told = shell("history", saga_id, "--states")

    assert told.code == 0 and "started before" in told.err
    assert shell("history", str(UUID(int=1)), "--states").code == exits.NOT_FOUND
    assert shell("history", saga_id, "--states", "--app", "nowhere:app").code == exits.USAGE
