"""Text that others wrote, and errors about it, to be shown: an id may hold anything, and an error may hold a secret."""

from __future__ import annotations

import json
import logging
import re
import traceback
from typing import Final

_VALUE: Final = re.compile(r"input_value=[^\n]*, input_type=")


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


def without_values(text: str) -> str:
    """The text of an error, or a traceback, without the values that pydantic repeats where they do not fit."""
    return _VALUE.sub("input_type=", text) if "input_value=" in text else text


def error_text(error: BaseException) -> str:
    """The class of an error and its text, without values."""
    return f"{type(error).__name__}: {without_values(str(error))}"


def traceback_text(error: BaseException) -> str:
    """The traceback of an error, without values."""
    return without_values("".join(traceback.format_exception(error)))


class LineFormatter(logging.Formatter):
    """Writes records so that nothing in them looks like another record: lines after the first are indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record."""
        return printable(without_values(super().format(record))).replace("\n", "\n  ")
