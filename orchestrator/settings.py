"""Settings of the orchestrator: a flag wins over the environment, that over `.env`, that over `saga.toml`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Final, TypeVar

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict
from sqlalchemy.engine import make_url

from messaging.settings import LayeredSettings
from orchestrator.retention import BATCH, PER_SECOND, REQUESTS_KEPT, TERMINAL, Rest, Retention

Seconds = Annotated[float, Field(gt=0)]
OffOrSeconds = Annotated[float, Field(ge=0)]
Days = Annotated[float | None, Field(gt=0)]
K = TypeVar("K")

_REST: Final = {
    Rest.EVENTS: "expired_events",
    Rest.UNMATCHED: "unmatched",
    Rest.AUDIT: "audit",
    Rest.BULKS: "bulks",
}
_OF_NO_USE: Final = {Rest.REQUESTS: REQUESTS_KEPT, Rest.SIGNALS: timedelta(hours=1)}


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
    alarm_every_seconds: Seconds = Field(
        default=15.0, description="How often it is looked for what to raise the alarm about, and the backlog measured"
    )
    alarm_window_seconds: Seconds = Field(
        default=300.0, description="The time before a look in which messages fit no saga, or sagas failed"
    )
    lock_alarm_seconds: OffOrSeconds = Field(
        default=3600.0, description="How long a saga holds a lock before the alarm is raised; 0 for never"
    )
    hold_alarm_seconds: OffOrSeconds = Field(default=3600.0, description="... for how long a definition is held")
    blocked_alarm_seconds: OffOrSeconds = Field(default=60.0, description="... for how long one is blocked")
    overdue_alarm_seconds: OffOrSeconds = Field(default=300.0, description="... for how long no engine looked at one")
    unsent_alarm_seconds: OffOrSeconds = Field(default=60.0, description="... how late a command has not left")
    outbox_alarm_seconds: OffOrSeconds = Field(default=60.0, description="... how old a message in the outbox is")
    unmatched_alarm_messages: Annotated[int, Field(ge=0)] = Field(
        default=100,
        description="More messages than this that fit no saga within the window raise the alarm; 0 for never",
    )
    failing_alarm_percent: Annotated[float, Field(ge=0, lt=100)] = Field(
        default=50.0, description="A larger part of a version's sagas failing within the window does; 0 for never"
    )
    failing_alarm_sagas: Annotated[int, Field(ge=1)] = Field(
        default=20, description="... of at least so many that failed"
    )
    hold_failing: bool = Field(
        default=False, description="Hold a version that this alarm is up about: its sagas begin once it is released"
    )
    drain_seconds: Seconds = Field(default=20.0, description="How long SIGTERM waits for what is under way")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=1024 * 1024, description="The largest reply or event"
    )
    keep_completed_days: Days = Field(default=None, description="How long completed sagas are kept; for ever if unset")
    keep_compensated_days: Days = Field(default=None, description="How long compensated sagas are kept")
    keep_compensated_with_exceptions_days: Days = Field(default=None, description="... those with a skipped undo")
    keep_abandoned_days: Days = Field(default=None, description="How long abandoned sagas are kept")
    keep_expired_events_days: Days = Field(default=None, description="How long events that nobody took are kept")
    keep_unmatched_days: Days = Field(default=None, description="How long messages that fit no saga are kept")
    keep_audit_days: Days = Field(default=None, description="How long the audit of sagas that are gone is kept")
    keep_bulks_days: Days = Field(default=None, description="How long actions on many sagas are kept")
    archive_dir: str = Field(default="", description="Where sagas are written to before they are deleted")
    purge_every_seconds: Seconds = Field(default=60.0, description="How often it is looked for what may go")
    purge_batch: Annotated[int, Field(ge=1, le=1000)] = Field(default=BATCH, description="Sagas deleted at once")
    purge_per_second: Annotated[float, Field(gt=0)] = Field(
        default=PER_SECOND, description="Sagas deleted in a second, at most"
    )

    @property
    def retention(self) -> Retention:
        """What goes after how long; if anything does, so does what is of no more use at all."""
        sagas = self._kept({status: f"keep_{status.value}_days" for status in TERMINAL})
        rest = self._kept({rest: f"keep_{name}_days" for rest, name in _REST.items()})
        return Retention(sagas, rest | _OF_NO_USE if sagas or rest else {})

    def _kept(self, fields: Mapping[K, str]) -> dict[K, timedelta]:
        days: dict[K, float | None] = {what: getattr(self, name) for what, name in fields.items()}
        return {what: timedelta(days=kept) for what, kept in days.items() if kept is not None}

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
