"""Text that others wrote, to be shown on a terminal or in a log: an id or an error may hold anything."""

from __future__ import annotations

import json
import logging


def printable(text: str) -> str:
    r"""The text with whatever would steer a terminal written out, such as `\x1b`; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def printable_json(text: str) -> str:
    """JSON text in one line that says the same, with whatever would steer a terminal written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


class LineFormatter(logging.Formatter):
    """Writes records so that nothing in them looks like another record: lines after the first are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return printable(super().format(record)).replace("\n", "\n  ")
