"""Definitions are held, told of, and released from a shell."""

from __future__ import annotations

import csv
import io
import json

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell, engine_running


def held(shell: Shell, *more: str) -> None:
    assert shell("hold", "paint-wall", "--reason", "the paint is off", *more).code == 0


def test_a_held_saga_waits_and_tells_why_until_it_is_released(shell: Shell) -> None:
    held(shell, "--version", "1")
    saga_id = shell.start("well")
    with engine_running(shell):
        waited = shell("start", "paint-wall", "--data", '{"name": "s", "ends": "well"}', "--wait", "--timeout", "0.5")
        assert waited.code == exits.NOT_COMPLETED
        assert "waiting for an operator to release its definition" in waited.err

        told = shell("why", saga_id)
        assert "Its definition is held since 2" in told.out and ": the paint is off. It has not begun" in told.out
        assert 'saga release paint-wall --version 1 --reason "..."' in told.out

        released = shell("release", "paint-wall", "--version", "1", "--reason", "new paint")
        assert (released.code, released.err) == (0, "Not begun: 2 sagas.\n")
        assert shell("watch", saga_id).code == 0
        assert json.loads(shell("show", saga_id, "--json").out)["saga"]["status"] == "completed"


def test_what_is_held_is_told_by_whom_and_why(shell: Shell) -> None:
    assert shell("holds").err == "Nothing is held.\n"
    held(shell)

    assert "paint-wall (all versions)  held since 2" in shell("holds").out
    told = json.loads(shell("holds", "--json").out)
    assert (told["saga"], told["version"], told["reason"]) == ("paint-wall", None, "the paint is off")
    (row,) = csv.DictReader(io.StringIO(shell("holds", "--csv").out))
    assert (row["saga"], row["version"], row["reason"]) == ("paint-wall", "", "the paint is off")
    assert "paint-wall (all versions) is held: its sagas do not begin" in shell("stats").err
    doctor = shell("doctor")
    assert doctor.code == 0
    assert "warn holds     paint-wall (all versions) is held since" in doctor.out
    assert '→ saga release paint-wall --reason "..."' in doctor.out


def test_a_dry_run_counts_and_holds_nothing(shell: Shell) -> None:
    shell.start("well")
    for command in ("hold", "release"):
        answer = shell(command, "paint-wall", "--reason", "to see", "--dry-run")
        assert (answer.code, answer.out) == (0, "")
        assert answer.err.endswith("Not begun: 1 saga. Nothing was done.\n")
    assert shell("holds").out == ""


def test_a_name_that_no_engine_has_is_held_and_asked_about(shell: Shell) -> None:
    with engine_running(shell):
        known = shell("hold", "paint-wall", "--version", "1", "--reason", "the paint is off")
        unknown = shell("hold", "paint-wal", "--reason", "the paint is off")

    assert (known.code, known.err) == (0, "Not begun: 0 sagas.\n")
    assert unknown.code == 0 and "paint-wal (all versions)" in unknown.out
    assert "No engine that was heard of in the last minute has paint-wal (all versions). Is it" in unknown.err


def test_what_does_not_fit_what_is_held_is_refused_with_why(shell: Shell) -> None:
    held(shell, "--version", "1")

    again = shell("hold", "paint-wall", "--version", "1", "--reason", "to be sure")
    assert again.code == exits.REFUSED
    assert "paint-wall v1 is held already, since 2" in again.err and "the paint is off" in again.err
    other = shell("release", "paint-wall", "--version", "2", "--reason", "new paint")
    assert other.code == exits.REFUSED
    assert "paint-wall v2 is not held, so it cannot be released. Held: paint-wall v1" in other.err
