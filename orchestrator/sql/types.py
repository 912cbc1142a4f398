"""Column types that read well in plain SQL on every database, and their text forms."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import CHAR, TIMESTAMP, Dialect, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine


def instant_text(value: datetime) -> str:
    """Write an aware instant as `2031-02-03 04:05:06.000789+00:00`: fixed width, so that text sorts as time.

    Raises:
        ValueError: the instant has no time zone, so nobody can say when it is.
    """
    if value.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone. Use aware instants, such as datetime.now(UTC)")
    return value.astimezone(UTC).isoformat(" ", "microseconds")


class Instant(TypeDecorator[datetime]):
    """An aware instant with microseconds: timestamptz on PostgreSQL, text in UTC on SQLite."""

    impl = CHAR(32)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[datetime]:
        """Native where there is a native type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(TIMESTAMP(timezone=True))
        return dialect.type_descriptor(CHAR(32))

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> object:
        """As the driver wants it."""
        if value is None or dialect.name == "postgresql":
            return value
        return instant_text(value)

    def process_result_value(self, value: object, dialect: Dialect) -> datetime | None:
        """Back, in UTC."""
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        return value.astimezone(UTC) if isinstance(value, datetime) else None


class Id(TypeDecorator[UUID]):
    """An id: uuid on PostgreSQL, the same dashed text on SQLite."""

    impl = CHAR(36)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[UUID]:
        """Native where there is a native type."""
        if dialect.name == "postgresql":
            return dialect.type_descriptor(Uuid())
        return dialect.type_descriptor(CHAR(36))

    def process_bind_param(self, value: UUID | None, dialect: Dialect) -> object:
        """As the driver wants it."""
        if value is None or dialect.name == "postgresql":
            return value
        return str(value)

    def process_result_value(self, value: object, dialect: Dialect) -> UUID | None:
        """Back."""
        return UUID(value) if isinstance(value, str) else value if isinstance(value, UUID) else None
