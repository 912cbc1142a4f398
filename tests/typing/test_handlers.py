"""Both type checkers take what is right and refuse what is wrong; an ignore that is not needed is an error."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).with_name("handlers.py")
MISTAKES = EXAMPLES.with_name("handler_mistakes.py")
ROOT = EXAMPLES.parents[2]


def test_mypy_takes_what_is_right_and_refuses_each_wrong_handler_class_on_its_line() -> None:
    said = _said("mypy", "--strict", "--hide-error-context")

    errors = re.findall(r"(\w+\.py):(\d+): error: ", said)
    assert {(file, int(line)) for file, line in errors} == _marked("# refused", "# refused by mypy"), said


def test_pyright_takes_what_is_right_and_refuses_each_wrong_handler_class_on_its_line() -> None:
    problems = json.loads(_said("pyright", "--outputjson"))["generalDiagnostics"]

    errors = [problem for problem in problems if problem["severity"] == "error"]
    found = {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}
    assert found == _marked("# refused"), problems


def _said(*checker: str) -> str:
    command = [sys.executable, "-m", *checker, str(EXAMPLES), str(MISTAKES)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def _marked(*marks: str) -> set[tuple[str, int]]:
    lines = enumerate(MISTAKES.read_text().splitlines(), 1)
    return {(MISTAKES.name, number) for number, line in lines if line.endswith(marks)}
