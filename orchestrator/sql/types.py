"""Column types that read well in plain SQL on every database, and their text forms."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final
from uuid import UUID

from sqlalchemy import CHAR, Dialect, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

from messaging.sql.types import Instant

__all__ = ["Id", "Instant", "id_from_text", "id_text", "instant_from_text", "instant_text"]

_KEPT: Final = 8192
# A batch has the same instant in most of its rows, and the next batches read and write the same ids again.
id_text = lru_cache(_KEPT)(str)
"""An id as dashed text."""
id_from_text = lru_cache(_KEPT)(UUID)
"""Read an id's text."""


@lru_cache(_KEPT)
def instant_text(value: datetime) -> str:
    """Write an aware instant as SQLite keeps it: `2031-02-03 04:05:06.000789`, UTC, sorting as time.

    Raises:
        ValueError: the instant has no time zone, so nobody can say when it is.
    """
    if value.tzinfo is not UTC:
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone. Use aware instants, such as datetime.now(UTC)")
        value = value.astimezone(UTC)
    return value.isoformat(" ", "microseconds")[:26]


@lru_cache(_KEPT)
def instant_from_text(text: str) -> datetime:
    """Read what `instant_text` wrote."""
    return datetime.fromisoformat(f"{text}+00:00")


class Id(TypeDecorator[UUID]):
    """An id: uuid on PostgreSQL, the same dashed text on SQLite."""

    impl = CHAR(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Native where there is a native type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid())
        return dialect.type_descriptor(CHAR(36))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> object:
        """As the driver wants it."""
        return value if value is None or dialect.name == "postgresql" else str(value)

    def process_result_value(self, value: object, dialect: Dialect) -> UUID | None:
        """Back."""
        return UUID(value) if isinstance(value, str) else value if isinstance(value, UUID) else None
