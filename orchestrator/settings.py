"""Settings of the orchestrator: a flag wins over the environment, that over `.env`, that over `saga.toml`."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url

from messaging.settings import LayeredSettings

Seconds = Annotated[float, Field(gt=0)]


class OrchestratorSettings(LayeredSettings):
    """`ORCHESTRATOR_*`, and the table `[orchestrator]` of `saga.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRATOR_",
        env_file=".env",
        toml_file="saga.toml",
        toml_table_header=("orchestrator",),
        extra="ignore",
    )

    database_url: SecretStr = Field(
        default=SecretStr("sqlite+aiosqlite:///saga.db"),
        description="Where sagas are kept: sqlite+aiosqlite:///FILE or postgresql+asyncpg://USER:PASSWORD@HOST/DB",
    )
    database_schema: str | None = Field(default=None, description="The PostgreSQL schema of the tables")
    app: str = Field(default="", description="Where commands find the sagas, module:attribute, unless --app says")
    batch: Annotated[int, Field(ge=1, le=1000)] = Field(default=200, description="Sagas in one transaction, at most")
    prefetch_messages: Annotated[int, Field(ge=1, le=65535)] = Field(
        default=1000, description="Replies taken in advance"
    )
    poll_seconds: Seconds = Field(default=0.1, description="How often the database is asked for what is due")
    sweep_seconds: Seconds = Field(
        default=5.0, description="How often events and waits that missed each other are joined"
    )
    send_grace_seconds: Seconds = Field(
        default=30.0, description="How long a command or event may be on its way before it is re-sent"
    )
    catch_up_limit_seconds: Seconds = Field(
        default=300.0, description="How long deadlines wait for answers in the queue"
    )
    keep_events_seconds: Seconds = Field(
        default=86400.0, description="How long an event is kept that no saga waits for"
    )
    needs_version_seconds: Seconds = Field(
        default=60.0, description="How long a saga is due, and no process has its version, before it is blocked"
    )
    lock_alarm_seconds: Seconds = Field(
        default=3600.0, description="How long a saga holds a lock before the alarm is raised"
    )
    drain_seconds: Seconds = Field(default=20.0, description="How long SIGTERM waits for what is under way")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=1024 * 1024, description="The largest reply or event"
    )

    @property
    def url(self) -> str:
        """The database URL with its password; never print it."""
        return self.database_url.get_secret_value()

    @property
    def shown_url(self) -> str:
        """The database URL as logs and people may see it."""
        return make_url(self.url).render_as_string(hide_password=True)

    @property
    def embedded(self) -> bool:
        """Whether sagas are kept in a SQLite file."""
        return make_url(self.url).get_backend_name() == "sqlite"

    def seconds(self, name: str) -> timedelta:
        """A setting in seconds as a duration."""
        return timedelta(seconds=float(getattr(self, f"{name}_seconds")))
