"""Both type checkers take what is right and refuse what is wrong; an ignore that is not needed is an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).with_name("handlers.py")
ROOT = EXAMPLES.parents[2]


@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["pyright"]], ids=["mypy", "pyright"])
def test_handlers_are_held_to_their_messages(checker: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *checker, str(EXAMPLES)], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
