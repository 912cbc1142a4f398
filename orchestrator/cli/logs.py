"""Logging on stderr: a line of text or of JSON for each record."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

from messaging.logged import IDS, MessageIds
from messaging.printable import LineFormatter, printable_json, without_values
from messaging.serving import quieten_libraries


class JsonFormatter(logging.Formatter):
    """One JSON object a line; the ids of the message being handled are fields of it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; a traceback, and what an alarm is about, are fields of it."""
        fields = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_values(record.getMessage()),
            **{name: value for name in IDS if (value := getattr(record, name, ""))},
        }
        if alarm := getattr(record, "alarm", None):
            fields["alarm"] = alarm
        if record.exc_info:
            fields["traceback"] = without_values(self.formatException(record.exc_info))
        return printable_json(json.dumps(fields, ensure_ascii=False))


class TextFormatter(LineFormatter):
    """Instant, level, logger, message, ids of the message being handled; UTC like everything in the database."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s%(ids)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        """With milliseconds."""
        instant = datetime.fromtimestamp(record.created, UTC)
        return instant.isoformat(" ", "milliseconds").removesuffix("+00:00")


def log_to_stderr(level: str, kind: str) -> None:
    """Send logs of this level and above to stderr.

    Args:
        level: debug, info, warning, error.
        kind: text or json.
    """
    handler = logging.StreamHandler()
    handler.addFilter(MessageIds())
    handler.setFormatter(JsonFormatter() if kind == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    if logging.getLogger().level > logging.DEBUG:
        quieten_libraries()
