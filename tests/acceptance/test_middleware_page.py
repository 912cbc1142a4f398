"""The page on middleware: its programs run as they stand."""

from __future__ import annotations

import re
import sys

from tests.support.programs import ROOT, Programs

PAGE = (ROOT / "docs" / "middleware.md").read_text()


def written(programs: Programs, name: str) -> str:
    """Write one of the page's programs into a file of the name it says."""
    (program,) = re.findall(rf"```python\n# {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    (programs.folder / name).write_text(program)
    return name


def test_the_guarded_service_knows_its_tenants_and_counts(programs: Programs) -> None:
    said = programs.done(programs.start(sys.executable, written(programs, "guarded.py")))

    assert said.splitlines() == [
        "charge: success",
        "900 cents of ann",
        "charge: failure",
        "refused: unknown tenant",
    ]


def test_the_traced_request_is_told_from_its_end_to_its_beginning(programs: Programs) -> None:
    said = programs.done(programs.start(sys.executable, written(programs, "traced.py")))

    assert sorted(said.splitlines()) == ["CONSUMER process payments", "INTERNAL checkout", "PRODUCER send payments"]
