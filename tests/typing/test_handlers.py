"""Both type checkers take what is right and refuse what is wrong; an ignore that is not needed is an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).with_name("handlers.py")
MISTAKES = EXAMPLES.with_name("handler_mistakes.py")
ROOT = EXAMPLES.parents[2]


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=["mypy", "pyright"])
def test_handlers_are_held_to_their_messages(checker: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *checker, str(EXAMPLES)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_mypy_refuses_each_wrong_handler_class_on_its_line() -> None:
    said = _refusing("mypy", "--strict", "--hide-error-context")

    found = {int(line) for line in re.findall(r"handler_mistakes\.py:(\d+): error: ", said)}
    assert found == _marked("# refused", "# refused by mypy")


def test_pyright_refuses_each_wrong_handler_class_on_its_line() -> None:
    problems = json.loads(_refusing("pyright", "--outputjson"))["generalDiagnostics"]

    found = {problem["range"]["start"]["line"] + 1 for problem in problems if problem["severity"] == "error"}
    assert found == _marked("# refused")


def _refusing(*checker: str) -> str:
    command = [sys.executable, "-m", *checker, str(MISTAKES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def _marked(*marks: str) -> set[int]:
    return {number for number, line in enumerate(MISTAKES.read_text().splitlines(), 1) if line.endswith(marks)}
