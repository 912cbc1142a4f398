"""The program `saga`: run, start, read and steer sagas from a shell.

Nothing heavy is imported before a command needs it, so that `saga --help` answers at once.
"""

from __future__ import annotations

import sys
from io import TextIOWrapper

__all__ = ["main"]


def main() -> None:
    """Run the program with the arguments of this process, and exit."""
    from orchestrator.cli.program import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without arrows shows question marks
    app(prog_name="saga")
