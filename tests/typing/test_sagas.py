"""Right sagas pass both type checkers in strict mode; each seeded mistake is refused by both, on its line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILES = [HERE / "sagas.py", HERE / "mistakes.py"]
MARK = "# expect-error"


def expected() -> set[tuple[str, int]]:
    lines = [(path.name, n, line) for path in FILES for n, line in enumerate(path.read_text().splitlines(), 1)]
    return {(name, number) for name, number, line in lines if MARK in line}


def run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command, *map(str, FILES)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr  # 0: it found nothing; 2 and more: it did not work
    return done.stdout


def found_by_mypy() -> set[tuple[str, int]]:
    output = run("mypy", "--strict", "--no-error-summary", "--hide-error-context")
    errors = re.findall(r"^(\S+\.py):(\d+): error: ", output, re.MULTILINE)
    return {(Path(path).name, int(line)) for path, line in errors}


def found_by_pyright() -> set[tuple[str, int]]:
    problems = json.loads(run("pyright", "--outputjson"))["generalDiagnostics"]
    errors = [problem for problem in problems if problem["severity"] == "error"]
    return {(Path(error["file"]).name, error["range"]["start"]["line"] + 1) for error in errors}


@pytest.mark.parametrize("find", [found_by_mypy, found_by_pyright])
def test_each_mistake_is_refused_on_its_line_and_nothing_else_is(find: object) -> None:
    assert callable(find)
    found: set[tuple[str, int]] = find()

    missed, wrongly = expected() - found, found - expected()

    assert not missed, f"not refused: {sorted(missed)}"
    assert not wrongly, f"refused though right: {sorted(wrongly)}"


def test_there_are_enough_mistakes_to_mean_something() -> None:
    assert len(expected()) >= 10
