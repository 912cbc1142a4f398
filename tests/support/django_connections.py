"""Connections as Django has them, in tests of a process that is no Django project."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import make_url


@contextmanager
def django_connection(url: str) -> Iterator[Any]:
    """Django's connection to a database; it is known to `transaction.atomic(connection.alias)`.

    Args:
        url: as SQLAlchemy writes it, of PostgreSQL or SQLite.
    """
    import django
    from django.conf import settings
    from django.db import connections

    if not settings.configured:
        settings.configure(USE_TZ=True)
        django.setup()
    alias = f"test-{secrets.token_hex(4)}"
    connections.settings[alias] = connections.configure_settings({"default": _described(url)})["default"]
    try:
        yield connections[alias]
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


def _described(url: str) -> dict[str, Any]:
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": parsed.database}
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parsed.database,
        "HOST": parsed.host or "",
        "PORT": parsed.port or "",
        "USER": parsed.username or "",
        "PASSWORD": parsed.password or "",
        "OPTIONS": dict(parsed.query),
    }
