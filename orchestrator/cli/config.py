"""Settings as a command sees them: flags over the environment over `.env` over `saga.toml`."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any, TypeVar

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_settings import BaseSettings

    from messaging.settings import MessagingSettings
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.web.settings import DashboardSettings

B = TypeVar("B", bound="BaseSettings")


def orchestrator_settings(database_url: str | None = None, app: str | None = None) -> OrchestratorSettings:
    """Settings of the orchestrator, with the flags that were given.

    Raises:
        CommandError: one of them is wrong; the text names it and where it may come from.
    """
    from orchestrator.settings import OrchestratorSettings

    settings = _read(OrchestratorSettings, {"database_url": database_url, "app": app})
    _check_url(settings.url)
    return settings


def messaging_settings(broker_url: str | None = None) -> MessagingSettings:
    """Settings of the bus, with the flag if it was given.

    Raises:
        CommandError: one of them is wrong.
    """
    from messaging.settings import MessagingSettings

    return _read(MessagingSettings, {"broker_url": broker_url})


def dashboard_settings(listen: str | None = None, *, read_only: bool = False) -> DashboardSettings:
    """Settings of the dashboard, with the flags that were given.

    Raises:
        CommandError: one of them is wrong.
    """
    from orchestrator.web.settings import DashboardSettings

    return _read(DashboardSettings, {"listen": listen, "read_only": read_only or None})


def _read(kind: type[B], flags: dict[str, Any]) -> B:
    from pydantic import ValidationError

    try:
        return kind(**{name: value for name, value in flags.items() if value is not None})
    except ValidationError as error:
        raise CommandError(_wrong_settings(kind, error), exits.USAGE) from error
    except tomllib.TOMLDecodeError as error:
        raise CommandError(f"saga.toml is not TOML: {error}", exits.USAGE) from error


def _wrong_settings(kind: type[BaseSettings], error: ValidationError) -> str:
    prefix = kind.model_config.get("env_prefix", "")
    lines = [
        f"  {prefix}{'.'.join(map(str, problem['loc'])).upper()}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_input=False, include_url=False)
    ]
    return "\n".join(["settings cannot be used (flag, environment, .env or saga.toml):", *lines])


def _check_url(url: str) -> None:
    from sqlalchemy.exc import ArgumentError

    from orchestrator.sql.connecting import async_url

    try:
        async_url(url)
    except (ArgumentError, ValueError) as error:
        raise CommandError(
            "ORCHESTRATOR_DATABASE_URL cannot be used. Write sqlite+aiosqlite:///FILE or "
            "postgresql+asyncpg://USER:PASSWORD@HOST/DATABASE",
            exits.USAGE,
        ) from error
