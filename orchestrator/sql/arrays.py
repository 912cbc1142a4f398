"""A batch's rows as PostgreSQL takes them: one array a column, so that one statement serves any number of rows.

A column without a value in any row goes in as no array at all: `unnest` fills up with NULL.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from orchestrator.sql.rows import RowValues

_TYPES: Final = {
    **dict.fromkeys(("id", "saga_id", "command_id", "parent_id", "root_id"), "uuid"),
    **dict.fromkeys(
        (
            *("version", "schema_version", "revision", "seq"),
            *("round", "attempt", "tries", "unanswered", "send_attempts"),
        ),
        "integer",
    ),
    **dict.fromkeys(
        (
            "wake_at",
            "deadline",
            "blocked_at",
            "paused_at",
            "started_at",
            "updated_at",
            "ended_at",
            "send_after",
            "sent_at",
            "made_on",
            "at",
        ),
        "timestamptz",
    ),
}


def listed(columns: Iterable[str], alias: str = "") -> str:
    """Name columns, for a SELECT or an INSERT."""
    return ", ".join(f"{alias}{column}" for column in columns)


def unnested(columns: Sequence[str], prefix: str = "") -> str:
    """A table `v` made of one array parameter a column; parameters are cast, so that the server need not guess."""
    arrays = (f"CAST(:{prefix}{column} AS {_TYPES.get(column, 'text')}[])" for column in columns)
    return f"unnest({', '.join(arrays)}) AS v({listed(columns)})"


def columnwise(columns: Sequence[str], rows: Sequence[RowValues], prefix: str = "") -> dict[str, list[Any] | None]:
    """The parameters of `unnested` for these rows, of which there is at least one."""
    names = (f"{prefix}{column}" for column in columns)
    nothing = (None,) * len(rows)
    arrays = (None if values == nothing else list(values) for values in zip(*rows, strict=True))
    return dict(zip(names, arrays, strict=True))
