"""Sagas over HTTP: an API, and a dashboard. They need the database alone; see `create_app`."""

from typing import TYPE_CHECKING, Any

from orchestrator.web.settings import DashboardSettings

if TYPE_CHECKING:
    from orchestrator.web.app import create_app

__all__ = ["DashboardSettings", "create_app"]


def __getattr__(name: str) -> Any:
    """Import the application only when it is asked for: settings need no extra."""
    if name != "create_app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from orchestrator.web.app import create_app

    return create_app
