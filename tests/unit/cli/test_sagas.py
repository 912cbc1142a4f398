"""Starting, reading and steering sagas from a shell, beside a real engine on SQLite."""

from __future__ import annotations

import json
import sqlite3
from uuid import UUID, uuid4

import pytest

from orchestrator.cli import exits
from tests.unit.cli import walls
from tests.unit.cli.conftest import Shell


def test_a_started_saga_prints_its_id_and_is_a_row(shell: Shell) -> None:
    saga_id = shell.start("well", "--key", "north-1")

    rows = sqlite3.connect(shell.folder / "saga.db").execute("SELECT saga_id, business_key FROM saga_status")
    assert rows.fetchall() == [(saga_id, "north-1")]


def test_a_key_that_is_taken_gives_the_first_saga_and_says_so(shell: Shell) -> None:
    first = shell.start("well", "--key", "north-1")

    again = shell("start", "paint-wall", "--data", '{"name": "south"}', "--key", "north-1")
    assert (again.code, again.out.strip()) == (0, first)
    assert "nothing was started" in again.err
    assert shell("start", "paint-wall", "-d", '{"name": "s"}', "-k", "north-1", "--json").json == {
        "saga_id": first,
        "created": False,
    }


def test_a_state_that_does_not_fit_is_told_field_by_field(shell: Shell) -> None:
    answer = shell("start", "paint-wall", "--data", '{"ends": "soon"}')

    assert answer.code == exits.USAGE
    assert "--data is no Wall, the state of paint-wall:" in answer.err
    assert "  name: Field required" in answer.err
    assert "  ends: Input should be 'well', 'refused'" in answer.err


def test_the_state_comes_from_a_file_or_from_standard_input(shell: Shell) -> None:
    (shell.folder / "wall.json").write_text('{"name": "east"}')

    assert shell("start", "paint-wall", "--data", "@wall.json").code == 0
    assert shell("start", "paint-wall", "--data", "-", typed='{"name": "west"}').code == 0
    missing = shell("start", "paint-wall", "--data", "@no.json")
    assert missing.code == exits.USAGE and "no.json cannot be read" in missing.err


def test_a_saga_nobody_defined_is_not_found_and_the_known_ones_are_named(shell: Shell) -> None:
    answer = shell("start", "paint-roof")

    assert answer.code == exits.NOT_FOUND
    assert "Known: paint-wall" in answer.err


def test_waiting_tells_how_it_ended_and_the_exit_code_says_whether_well(working_shell: Shell) -> None:
    well = working_shell("start", "paint-wall", "--data", '{"name": "a"}', "--wait", "--timeout", "30")
    assert well.code == 0
    assert " completed in " in well.out

    refused = working_shell("start", "paint-wall", "-d", '{"name": "b", "ends": "refused"}', "-w", "--json")
    assert refused.code == exits.NOT_COMPLETED
    assert refused.json["status"] == "compensated"
    assert refused.json["error_text"] == "the wall is wet"


def test_waiting_in_vain_exits_with_6_and_names_the_next_command(shell: Shell) -> None:
    answer = shell("start", "paint-wall", "--data", '{"name": "a"}', "--wait", "--timeout", "0.01")

    saga_id = answer.out.strip()
    assert answer.code == exits.NOT_COMPLETED
    assert f"saga watch {saga_id}" in answer.err


def test_sagas_are_listed_newest_first_and_narrowed_down(working_shell: Shell) -> None:
    first = working_shell.start("well", "--key", "one", "--wait")
    second = working_shell.start("waiting", "--key", "two")

    listed = [json.loads(line) for line in working_shell("list", "--json").out.splitlines()]
    assert [row["saga_id"] for row in listed] == [second, first]
    assert first in working_shell("list", "--status", "completed").out
    assert second not in working_shell("list", "--status", "completed").out
    assert second in working_shell("list", "--key", "two", "--saga", "paint-wall").out
    assert f"There are more. The next page: --after {second}" in working_shell("list", "--limit", "1").err
    (below,) = [json.loads(line) for line in working_shell("list", "--json", "--after", second).out.splitlines()]
    assert below["saga_id"] == first
    assert second in working_shell("list", "--at", "Drying").out
    assert working_shell("list", "--at", "Painting").out == ""
    assert working_shell("list", "--older-than", "1h").out == ""
    none = working_shell("list", "--key", "three")
    assert (none.code, none.out.strip(), none.err.strip()) == (0, "", "No sagas match.")


def test_show_tells_the_steps_and_why_it_turned_back(working_shell: Shell) -> None:
    refused = working_shell("start", "paint-wall", "-d", '{"name": "b", "ends": "refused"}', "-w", "--json")
    saga_id = refused.json["saga_id"]

    shown = working_shell("show", saga_id)
    assert shown.code == 0
    assert f"paint-wall {saga_id}  compensated" in shown.out
    assert "first cause Painting: paint-refused: the wall is wet" in shown.out
    assert "paint to painter" in shown.out
    assert "turned_back Painting" in shown.out


def test_show_gives_programs_ids_and_instants_as_the_database_has_them(working_shell: Shell) -> None:
    saga_id = working_shell.start("well", "--wait")

    shown = working_shell("show", saga_id, "--json").json
    connection = sqlite3.connect(working_shell.folder / "saga.db")
    (in_database,) = connection.execute("SELECT saga_id, started_at, ended_at FROM saga_status").fetchall()
    assert tuple(shown["saga"][name] for name in ("saga_id", "started_at", "ended_at")) == in_database
    assert [(step["step"], step["status"]) for step in shown["timeline"]] == [
        ("Painting", "succeeded"),
        ("Drying", "skipped"),
    ]


def test_a_blocked_saga_shows_the_safe_next_command_and_that_command_works(working_shell: Shell) -> None:
    data = '{"name": "b", "ends": "blocked"}'
    saga_id = working_shell("start", "paint-wall", "-d", data, "-w", "--json").json["saga_id"]
    shown = working_shell("show", saga_id).out
    assert "blocked     retries_exhausted at Painting" in shown
    assert f"saga retry {saga_id} --reason" in shown

    walls.ladder_is_back.set()
    retried = working_shell("retry", saga_id, "--reason", "the ladder is back")
    assert retried.code == 0, retried.err
    watched = working_shell("watch", saga_id)
    assert watched.code == 0
    assert watched.out.rstrip().splitlines()[-1].split()[1:3] == ["■", "completed"]
    assert "the ladder is back" in working_shell("show", saga_id).out


def test_a_cancelled_saga_is_undone(working_shell: Shell) -> None:
    saga_id = working_shell.start("waiting")

    cancelled = working_shell("cancel", saga_id, "--reason", "wrong colour")
    assert cancelled.code == 0, cancelled.err
    stories = [json.loads(line) for line in working_shell("watch", saga_id, "--json").out.splitlines()]
    assert stories[-1]["what"] == "ended" and stories[-1]["text"] == "compensated"
    assert "wrong colour" in working_shell("show", saga_id).out


def test_a_paused_saga_stands_still_until_it_is_resumed(working_shell: Shell) -> None:
    saga_id = working_shell.start("waiting")
    watched = working_shell("pause", saga_id, "--reason", "the rain")
    assert watched.code == 0, watched.err
    assert "waiting for an operator to resume it" in watched.out

    again = working_shell("pause", saga_id, "--reason", "the rain")
    assert (again.code, "it is paused already" in again.err) == (exits.REFUSED, True)
    assert working_shell("resume", saga_id, "--reason", "the sun").code == 0
    shown = working_shell("show", saga_id).out
    assert "the rain" in shown and "the sun" in shown


@pytest.mark.parametrize(
    ("action", "status"), [("resolve", "completed"), ("skip", "completed"), ("abandon", "abandoned")]
)
def test_a_blocked_saga_can_be_put_right_by_hand(action: str, status: str, working_shell: Shell) -> None:
    data = '{"name": "b", "ends": "blocked"}'
    saga_id = working_shell("start", "paint-wall", "-d", data, "-w", "--json").json["saga_id"]

    acted = working_shell(action, saga_id, "--reason", "painted on Sunday")
    assert acted.code == 0, acted.err
    assert f"saga {saga_id}" in acted.out and status in acted.out
    stories = [json.loads(line) for line in working_shell("watch", saga_id, "--json").out.splitlines()]
    assert stories[-1]["text"] == status
    assert "painted on Sunday" in working_shell("show", saga_id).out


@pytest.mark.parametrize("action", ["cancel", "retry", "pause", "resume", "skip", "resolve", "compensate", "abandon"])
def test_what_the_state_of_a_saga_does_not_allow_is_refused_with_why(action: str, working_shell: Shell) -> None:
    saga_id = working_shell.start("well", "--wait")

    answer = working_shell(action, saga_id, "--reason", "just so")
    assert answer.code == exits.REFUSED
    assert f"{action} of saga {saga_id} refused: " in answer.err


def test_of_a_saga_that_is_not_there_why_tells_that_its_message_may_still_come(shell: Shell) -> None:
    answer = shell("why", str(uuid4()))
    assert answer.code == exits.NOT_FOUND
    assert "its message is still to come" in answer.err


@pytest.mark.parametrize("command", [("show",), ("watch",), ("cancel", "--reason", "x"), ("retry", "--reason", "x")])
def test_an_unknown_saga_is_not_found_and_what_is_no_id_is_wrong_usage(command: tuple[str, ...], shell: Shell) -> None:
    name, *options = command
    unknown = shell(name, str(uuid4()), *options)
    assert unknown.code == exits.NOT_FOUND
    assert "List them with: saga list" in unknown.err

    no_id = shell(name, "1001", *options)
    assert no_id.code == exits.USAGE
    assert "'1001' is no saga id" in no_id.err.replace("\n", " ")


def test_watch_asks_which_saga(shell: Shell) -> None:
    assert shell("watch").code == exits.USAGE
    assert shell("watch", str(UUID(int=1)), "--all").code == exits.USAGE


def test_why_tells_a_blocked_saga_in_a_paragraph_with_what_is_safe_to_do(working_shell: Shell) -> None:
    data = '{"name": "b", "ends": "blocked"}'
    answer = working_shell("start", "paint-wall", "--data", data, "--key", "north-1", "--wait", "--json")
    saga_id = answer.json["saga_id"]

    told = working_shell("why", saga_id)

    assert told.code == 0
    assert "paint-wall v1 for north-1 is blocked and needs an operator" in told.out
    assert "Painting got no answer it could use, and its attempts are used up." in told.out
    assert "The last error was RuntimeError: the ladder is gone." in told.out
    assert f'saga retry {saga_id} --reason "..."\n      asks the participant again with the same key' in told.out
    machine_readable = working_shell("why", saga_id, "--json").json
    assert machine_readable["saga_id"] == saga_id and machine_readable["why"].startswith("paint-wall v1")
    assert set(machine_readable["advice"][0]) == {"do", "consequence", "action"}


def test_why_of_a_saga_nobody_knows_is_not_found(shell: Shell) -> None:
    answer = shell("why", str(uuid4()))

    assert answer.code == exits.NOT_FOUND and "saga list" in answer.err


# -- answers that come later


def test_a_reply_token_completes_a_step_from_a_shell_and_is_told_why_it_does_not_again(working_shell: Shell) -> None:
    saga_id = working_shell.start("later")
    token = walls.tokens.get(timeout=90)

    done = working_shell("complete", token, "--data", "{}", "--reason", "looked at it")
    assert (done.code, done.out.partition(":")[0]) == (0, "Accepted"), done.err
    assert saga_id in done.out
    again = working_shell("complete", token)
    assert again.code == exits.REFUSED and "complete of saga" in again.err


def test_a_reply_token_refuses_a_step_with_a_code(working_shell: Shell) -> None:
    saga_id = working_shell.start("later")

    refused = working_shell(
        "complete", walls.tokens.get(timeout=90), "--failure", "paint-refused", "-d", '{"reason": "it rains"}'
    )

    assert refused.code == 0, refused.err
    assert "it rains" in working_shell("show", saga_id).out


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["no-token"], exits.NOT_FOUND, "the reply token cannot be used"),
        (["no-token", "--data", "{"], exits.USAGE, "--data is no JSON"),
    ],
)
def test_what_is_no_token_or_no_json_is_refused(shell: Shell, arguments: list[str], code: int, told: str) -> None:
    answer = shell("complete", *arguments)

    assert (answer.code, told in answer.err) == (code, True), answer.err
