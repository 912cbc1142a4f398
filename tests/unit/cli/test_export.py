"""`saga export`: the test it prints is one that passes."""

from __future__ import annotations

import subprocess
import sys
from uuid import uuid4

from tests.support.programs import ROOT
from tests.unit.cli.conftest import Shell


def test_what_is_printed_passes_in_a_file_of_its_own(working_shell: Shell) -> None:
    saga_id = working_shell.start("well", "--wait")
    exported = working_shell("export", saga_id, "--as-test")
    assert exported.code == 0, exported.err

    (working_shell.folder / "test_exported.py").write_text(exported.out)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_exported.py"]
    done = subprocess.run(
        command,
        cwd=working_shell.folder,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + exported.out


def test_what_cannot_be_exported_is_told(shell: Shell) -> None:
    assert shell("export", str(uuid4())).code == 2
    unknown = shell("export", str(uuid4()), "--as-test")
    assert unknown.code == 3
    assert "no saga has the id" in unknown.err
