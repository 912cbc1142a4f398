"""`saga check` from a shell."""

from __future__ import annotations

import sys

import pytest

from orchestrator.cli import exits
from tests.unit.cli.conftest import Shell

TRAP = """
from pydantic import BaseModel
from messaging import Command, Reply
from orchestrator import Orchestrator, Saga, Step

class Parcel(BaseModel):
    parcel: str
    label: str | None = None

class Labelled(Reply):
    label: str

class Label(Command[Labelled]):
    parcel: str

class Unlabel(Command[Labelled]):
    label: str | None

class Labelling(Step[Parcel, Labelled]):
    participant = "printer"

    def command(self, state: Parcel) -> Label:
        return Label(parcel=state.parcel)

    def on_reply(self, state: Parcel, reply: Labelled) -> None:
        state.label = reply.label

    def compensation(self, state: Parcel) -> Unlabel:
        return Unlabel(label=state.label)

class ParcelSaga(Saga[Parcel]):
    steps = (Labelling(),)

app = Orchestrator(sagas=[ParcelSaga])
"""


@pytest.fixture
def trapped(bare_shell: Shell, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with a compensation that reads its own reply."""
    monkeypatch.syspath_prepend(str(bare_shell.folder))
    monkeypatch.delitem(sys.modules, "parcel_trap", raising=False)  # of another test's folder
    (bare_shell.folder / "parcel_trap.py").write_text(TRAP, encoding="utf-8")
    return "parcel_trap:app"


def test_an_error_is_told_with_file_line_and_remedy_and_exits_with_1(bare_shell: Shell, trapped: str) -> None:
    answer = bare_shell("check", trapped)

    assert answer.code == exits.FAILED
    first, second, third = answer.out.splitlines()
    assert first == "error   parcel_trap.py:29  Labelling (parcel v1)"
    assert second.startswith("        compensation() reads state.label, ")
    assert third.startswith("        → ")
    assert answer.err == "1 saga checked: 1 error.\n"


def test_programs_get_the_findings_as_json(bare_shell: Shell, trapped: str) -> None:
    (finding,) = bare_shell("check", trapped, "--json").json

    assert (finding["level"], finding["rule"], finding["line"]) == ("error", "own-answer", 29)


def test_warnings_fail_only_when_that_is_asked_for(bare_shell: Shell) -> None:
    assert bare_shell("check").code == 0
    assert "PaintRefused" in bare_shell("check").out
    assert bare_shell("check", "--strict").code == exits.FAILED


def test_what_has_no_sagas_is_wrong_usage(bare_shell: Shell) -> None:
    answer = bare_shell("check", "tests.unit.cli.walls:painter")

    assert answer.code == exits.USAGE and "none of these is an Orchestrator" in answer.err


def test_check_explains_itself_with_examples(bare_shell: Shell) -> None:
    assert "saga check shop.main:app" in bare_shell("check", "--help").out.partition("Examples:")[2]


def test_sagas_in_flight_of_code_that_is_gone_are_told_by_definition_and_step(shell: Shell, trapped: str) -> None:
    shell.start("waiting")
    shell.start("waiting")
    assert shell("check", "--against-db").code == 0

    answer = shell("check", trapped, "--against-db")

    assert answer.code == exits.FAILED
    assert answer.out.splitlines()[:3] == [
        "error   paint-wall (paint-wall v1)",
        "        2 of paint-wall v1 have not begun, which this code does not have: it has no saga of this name",
        "        → Register it, or let them end before code without it runs",
    ]


def test_checking_against_a_database_that_is_not_there_says_so(bare_shell: Shell) -> None:
    answer = bare_shell("check", "--against-db")

    assert answer.code == exits.FAILED and "Run: saga migrate" in answer.err
