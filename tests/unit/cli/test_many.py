"""Actions on many sagas: given by id, or chosen; told line by line."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.cli import exits
from orchestrator.cli.progress import Progress
from tests.unit.cli import walls
from tests.unit.cli.conftest import Answer, Shell

ACTIONS = ["cancel", "retry", "pause", "resume", "skip", "resolve", "compensate", "abandon"]


def results(answer: Answer) -> dict[str, str]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in answer.out.splitlines()]
    return {line["saga_id"]: line["result"] for line in lines}


def test_blocked_sagas_are_chosen_and_retried_with_one_line_each(working_shell: Shell) -> None:
    data = '{"name": "b", "ends": "blocked"}'
    start = ("start", "paint-wall", "--data", data, "--wait", "--json")
    blocked = [working_shell(*start).json["saga_id"] for _ in range(3)]
    working_shell.start("waiting")
    walls.ladder_is_back.set()

    retried = working_shell("retry", "--at", "Painting", "--reason", "the ladder is back", "--yes", "--json")

    assert retried.code == 0, retried.err
    assert results(retried) == dict.fromkeys(blocked, "done")
    assert retried.err.strip() == "done: 3"
    assert "the ladder is back" in working_shell("show", blocked[0]).out


def test_ids_are_asked_each_and_the_worst_is_the_exit_code(working_shell: Shell) -> None:
    waiting, over, nobody = working_shell.start("waiting"), working_shell.start("well", "--wait"), str(uuid4())

    asked = working_shell("cancel", waiting, over, nobody, "--reason", "wrong colour")

    assert asked.code == exits.REFUSED
    assert set(asked.out.split("\n")) == {f"done  {waiting}", f"refused  {over}", f"unknown  {nobody}", ""}
    assert f"cancel of saga {over} refused: " in asked.err and f"no saga has the id {nobody}" in asked.err


def test_what_is_chosen_is_asked_about_and_a_no_changes_nothing(working_shell: Shell) -> None:
    saga_id = working_shell.start("waiting")
    choice = ("pause", "--saga", "paint-wall", "--reason", "the rain")

    no = working_shell(*choice, typed="n\n")
    assert (no.code, "Pause 1 saga?" in no.err, "nothing was asked" in no.err) == (exits.FAILED, True, True)
    nobody = working_shell(*choice, typed="")
    assert nobody.code == exits.FAILED and "Without a terminal, say --yes" in nobody.err

    assert f"done  {saga_id}\n" in working_shell(*choice, typed="y\n").out
    assert working_shell(*choice).err.strip() == "No sagas match.", "it is paused already"
    assert working_shell("resume", "--all", "--yes", "--reason", "the sun").out.strip() == f"done  {saga_id}"


@pytest.mark.parametrize("action", ACTIONS)
def test_a_dry_run_tells_which_and_asks_nothing(action: str, shell: Shell) -> None:
    saga_id = shell.start("well")

    told = shell(action, saga_id, "--reason", "strike", "--dry-run")

    assert told.code == 0
    assert told.out.strip() == f"would {action}  saga {saga_id} is running, waiting for the engine"
    assert told.err.strip() == "1 saga. Nothing was done."
    assert "strike" not in shell("show", saga_id).out


def test_a_dry_run_tells_of_all_that_are_named_also_after_one_that_is_not_there(shell: Shell) -> None:
    saga_id, nobody = shell.start("well"), str(uuid4())

    told = shell("cancel", nobody, saga_id, "--reason", "strike", "--dry-run", "--json")

    assert told.code == exits.NOT_FOUND
    assert results(told) == {nobody: "unknown", saga_id: "would cancel"}


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_is_simulated_on_what_states_say(action: str, working_shell: Shell) -> None:
    states = {"retry": "blocked", "skip": "blocked", "resolve": "blocked"}
    data = {"name": "b", "ends": states.get(action, "waiting")}
    saga_id = working_shell("start", "paint-wall", "--data", json.dumps(data)).out.strip()
    at = {"blocked": "Painting", "waiting": "Drying"}[data["ends"]]
    while saga_id not in working_shell("list", "--at", at, *(("--status", "blocked") * (action in states))).out:
        pass
    if action == "resume":
        assert working_shell("pause", saga_id, "--reason", "the rain").code == 0
    before = working_shell("show", saga_id, "--json").json

    told = working_shell(action, "--where", f"ends={data['ends']}", "--reason", "r", "--simulate")

    assert told.code == 0, told.err
    assert told.out.startswith(f"would {action}  {saga_id}: ")
    assert "ends is not searchable: this reads every saga" in told.err
    assert working_shell("show", saga_id, "--json").json == before


def test_which_ones_must_be_said_in_one_way(shell: Shell) -> None:
    none = shell("abandon", "--reason", "strike")
    assert none.code == exits.USAGE and "say which to abandon: an ID, --saga, " in none.err
    both = shell("abandon", str(uuid4()), "--saga", "paint-wall", "--reason", "strike")
    assert both.code == exits.USAGE and "not both" in both.err
    assert shell("cancel", str(uuid4()), "--step", "Painting", "--reason", "strike").code == exits.USAGE


class Now:
    """A clock that is set by hand."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_progress_is_told_now_and_then_with_its_rate_and_what_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = Now()
    told: list[str] = []
    with Progress(1200, terminal=False, clock=now) as progress:
        for done, now.seconds in ((100, 101.0), (300, 103.0), (400, 104.0), (1200, 112.0)):
            progress.show(done)
            told.append(capsys.readouterr().err)

    assert told == ["", "300 of 1,200, 100 a second, about 9.0 s to go\n", "", ""]
    assert capsys.readouterr().err == "", "what is done needs no progress"


def test_on_a_terminal_progress_is_a_bar_that_is_gone_when_something_else_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = Now()
    with Progress(1200, terminal=True, clock=now) as progress:
        progress.show(1)
        now.seconds = 103.0
        progress.show(300)
        progress.clear()
        progress.show(600)
        with pytest.raises(ZeroDivisionError), progress:
            1 / 0  # noqa: B018

    gone = "\r\x1b[K"
    assert capsys.readouterr().err == (
        f"{'█' * 5}{'░' * 15}  300 of 1,200, 100 a second, about 9.0 s to go{gone}"
        f"{'█' * 10}{'░' * 10}  600 of 1,200, 200 a second, about 3.0 s to go{gone}"
    )


def test_where_nobody_knows_how_many_there_are_the_rate_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    now = Now()
    with Progress(None, terminal=False, clock=now) as progress:
        now.seconds = 104.0
        progress.show(200)

    assert capsys.readouterr().err == "200 so far, 50 a second\n"


def test_a_simulation_tells_what_would_be_sent_and_does_nothing(working_shell: Shell) -> None:
    saga_id = working_shell.start("blocked")
    assert (
        working_shell("start", "paint-wall", "-d", '{"name": "n", "ends": "blocked"}', "-w").code == exits.NOT_COMPLETED
    )
    while working_shell("show", saga_id, "--json").json["saga"]["status"] != "blocked":
        pass

    told = working_shell("retry", saga_id, "--reason", "r", "--simulate")
    refused = working_shell("resume", saga_id, "--reason", "r", "--simulate", "--json")
    unknown = working_shell("cancel", str(uuid4()), "--reason", "r", "--simulate")

    assert told.code == 0
    assert f"would retry  {saga_id}: blocked → running, at Painting" in told.out
    assert "    send paint to painter (Painting, attempt 2)" in told.out
    assert "not paused" in refused.json["simulated"]["refused"]
    assert "no saga has this id" in unknown.out
    assert (refused.code, unknown.code) == (exits.REFUSED, exits.NOT_FOUND)
    assert working_shell("show", saga_id, "--json").json["saga"]["status"] == "blocked"
    assert working_shell("show", saga_id, "--json").json["audit"] == []
