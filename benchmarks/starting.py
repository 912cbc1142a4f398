"""How long a new process takes until it can begin: imports, and the command's help."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

PROGRAMS: Final = {
    "an interpreter": ["-c", "pass"],
    "import messaging": ["-c", "import messaging"],
    "import orchestrator": ["-c", "import orchestrator"],
    "saga --help": [str(Path(sys.executable).with_name("saga")), "--help"],
}


def starting_times(rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each, the interpreter's own start included, round by round; compiled before the first."""
    with tempfile.TemporaryDirectory() as compiled:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        times = [{name: _milliseconds(name, environment) for name in PROGRAMS} for _ in range(rounds + 1)]
    return {name: [one[name] for one in times[1:]] for name in PROGRAMS}


def _milliseconds(name: str, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    command = [sys.executable, *PROGRAMS[name]]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=60)
    return round((time.perf_counter() - begun) * 1000, 1)
