"""Sagas are found by what their states say: `--where`, by an index or by reading, which is told."""

from __future__ import annotations

import json
import re

import pytest
from sqlalchemy import create_engine, text

from orchestrator.cli import exits
from tests.unit.cli.conftest import Answer, Shell

STRIKE = ("--reason", "strike", "--dry-run")


def started(shell: Shell, name: str, ends: str = "well") -> str:
    return shell("start", "paint-wall", "--data", json.dumps({"name": name, "ends": ends})).out.split()[0]


def listed(answer: Answer) -> list[str]:
    assert answer.code == 0, answer.err
    return [json.loads(line)["saga_id"] for line in answer.out.splitlines()]


def test_a_marked_field_is_found_without_a_word(shell: Shell) -> None:
    north, south = started(shell, "north"), started(shell, "south", "waiting")

    found = shell("list", "--where", "name=south", "--json")

    assert (listed(found), found.err) == ([south], "")
    assert shell("list", "--where", "name=east").err == "No sagas match.\n"
    assert f"would cancel  saga {north} is" in shell("cancel", "--where", "name=north", *STRIKE).out


def test_another_field_is_found_by_reading_which_is_told(shell: Shell) -> None:
    started(shell, "north")
    south = started(shell, "south", "waiting")
    told = "ends is not searchable: this reads every saga; mark it: ends: Annotated[..., Searchable]\n"

    found = shell("list", "--where", "ends=waiting", "--where", "name=south", "--json")
    dry = shell("cancel", "--where", "ends=waiting", *STRIKE)

    assert (listed(found), found.err) == ([south], told)
    assert dry.out.startswith(f"would cancel  saga {south} is") and dry.err == f"{told}1 saga. Nothing was done.\n"


def test_a_condition_that_cannot_be_is_a_usage_error(shell: Shell) -> None:
    for wrong, told in (("name", "Write FIELD=VALUE"), ("na me=x", "is no field of a state")):
        answer = shell("list", "--where", wrong)
        assert answer.code == exits.USAGE and told in answer.err
    assert shell("list", "--where", "name=a", "--where", "name=b").code == exits.USAGE


def test_what_was_there_before_the_mark_is_read_until_it_is_reindexed(shell: Shell) -> None:
    north = started(shell, "north")
    engine = create_engine(shell.url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM saga_search"))
    engine.dispose()
    south = started(shell, "south")
    before = shell("list", "--where", "name=north", "--json")
    assert (listed(before), before.err) == (
        [north],
        "name was not always searchable: this reads every paint-wall. Run: saga reindex paint-wall\n",
    )

    assert shell("reindex", "paint-wall").out == "2 sagas can be found by name.\n"

    after = shell("list", "--where", "name=north", "--json")
    assert (listed(after), after.err) == ([north], "")
    assert listed(shell("list", "--where", "name=south", "--json")) == [south]
    assert shell("reindex", "paint-house").code == exits.NOT_FOUND


def test_a_reindex_that_takes_long_tells_how_far_it_is(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("north", "south", "west"):
        started(shell, name)
    assert shell("reindex", "paint-wall").err == ""

    monkeypatch.setattr("orchestrator.cli.progress._EVERY_SECONDS", 0.0)
    monkeypatch.setattr("orchestrator.sql.reindex.AT_ONCE", 1)
    long = shell("reindex", "paint-wall")

    assert long.out == "3 sagas can be found by name.\n"
    told = r"1 of 3, \S+ a second, about .+ to go\n2 of 3, \S+ a second, about .+ to go\n"
    assert re.fullmatch(told, long.err), long.err


def test_what_is_erased_is_chosen_by_what_the_state_says(working_shell: Shell) -> None:
    ids = {
        name: working_shell("start", "paint-wall", "--data", json.dumps({"name": name}), "--wait").out.split()[0]
        for name in ("north", "south")
    }
    alive = started(working_shell, "south", "waiting")
    erase = ("erase", "--where", "name=south", "--reason", "case 118")
    assert working_shell(*erase, "--dry-run").out.startswith(f"would erase  saga {ids['south']} ")

    erased = working_shell(*erase, "--yes", "--json")

    assert [(one["saga_id"], one["result"]) for one in map(json.loads, erased.out.splitlines())] == [
        (ids["south"], "done")
    ]
    assert listed(working_shell("list", "--where", "name=south", "--json")) == [alive], "it is found by it no more"
    assert listed(working_shell("list", "--where", "name=north", "--json")) == [ids["north"]]
    again = working_shell(*erase, "--yes")
    assert (again.code, again.out) == (0, "") and again.err.endswith("No sagas match.\n")
