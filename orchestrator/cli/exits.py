"""How the program ends: exit codes, and errors that a person can act on."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1
USAGE: Final = 2
NOT_FOUND: Final = 3
REFUSED: Final = 4
UNREACHABLE: Final = 5
NOT_COMPLETED: Final = 6
INTERRUPTED: Final = 130


class CommandError(Exception):
    """A command cannot be carried out: what happened, why, and what to do, in its text."""

    def __init__(self, text: str, code: int = FAILED) -> None:
        self.text, self.code = text, code
        super().__init__(text)
