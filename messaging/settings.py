"""Settings of the bus: a flag wins over the environment, that over `.env`, that over `saga.toml`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from messaging.codec import DEFAULT_LIMITS, Limits

Seconds = Annotated[float, Field(gt=0)]
_SCHEMES: Final = ("memory", "amqp", "amqps", "redis", "rediss", "unix")
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{0,64}\Z")


def _broker_url(url: SecretStr) -> SecretStr:
    scheme, separator, _ = url.get_secret_value().partition("://")
    if not separator or scheme.lower() not in _SCHEMES:
        raise ValueError(
            "must be memory://, or amqp://USER:PASSWORD@HOST:5672/VHOST, or redis://USER:PASSWORD@HOST:6379/DATABASE, "
            "or amqps://, rediss://, unix://PATH"
        )
    return url


def _prefix(prefix: str) -> str:
    if not _PREFIX.match(prefix):
        raise ValueError("must be at most 64 of the characters A-Z a-z 0-9 _ . : -")
    return prefix


def _names(text: object) -> object:
    return [name for part in text.split(",") if (name := part.strip())] if isinstance(text, str) else text


class LayeredSettings(BaseSettings):
    """Settings whose sources are, in this order, flags, the environment, `.env` and `saga.toml`."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, `.env`, TOML, in this order."""
        return init_settings, env_settings, dotenv_settings, TomlConfigSettingsSource(settings_cls)


class MessagingSettings(LayeredSettings):
    """`MESSAGING_*`, and the table `[messaging]` of `saga.toml`."""

    model_config = SettingsConfigDict(
        env_prefix="MESSAGING_",
        env_file=".env",
        toml_file="saga.toml",
        toml_table_header=("messaging",),
        extra="ignore",
        hide_input_in_errors=True,
    )

    broker_url: Annotated[SecretStr, AfterValidator(_broker_url)] = Field(
        default=SecretStr("memory://"),
        description="Where messages go: memory:// in this process, or amqp://USER:PASSWORD@HOST:5672/VHOST, "
        "or redis://USER:PASSWORD@HOST:6379/DATABASE",
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="", description="Before the name of every queue and exchange, so that two systems can share a broker"
    )
    queue_type: Literal["quorum", "classic"] = Field(
        default="quorum", description="quorum, or classic where there is one broker node and speed is all"
    )
    topology: Literal["declare", "passive"] = Field(
        default="declare",
        description="declare what is consumed; or, where this user may not, passive: look that all of it is there, as "
        "saga topology apply has declared it; RabbitMQ only",
    )
    redis_survives_restart: bool | None = Field(
        default=None,
        description="Whether what Redis confirmed outlives its restart; unset, it is asked, and only an append-only "
        "file that is written before each answer counts",
    )
    redis_dead_after_seconds: Annotated[float, Field(ge=1)] = Field(
        default=60.0, description="A consumer not heard of for so long has its messages taken over; Redis only"
    )
    tls_ca_file: Path | None = Field(
        default=None, description="Whose word is taken for an amqps broker's certificate (PEM); else the system's CAs"
    )
    tls_certificate_file: Path | None = Field(
        default=None, description="Our own certificate (PEM), for an amqps broker that demands one"
    )
    tls_key_file: Path | None = Field(
        default=None, description="The key of our certificate (PEM), where it is not in the same file"
    )
    tls_key_password: SecretStr | None = Field(default=None, description="The password of that key")
    tls_server_name: str = Field(
        default="", description="The name in an amqps broker's certificate, where it is not the host's in the URL"
    )
    pymessagingframework: bool = Field(
        default=False,
        description="Whether direct_exchange, fanout_exchange and topic_exchange are those of services on "
        "PyMessagingFramework 2.x; see docs/migrating.md",
    )
    pymessagingframework_queues: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(), description="Queues of services on PyMessagingFramework 2.x, with commas between them"
    )
    coalesce_to: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(),
        description="Queues to which commands of sagas, and answers, leave up to 50 in one message, with commas "
        "between them; all that consume them must be services or orchestrators of sagasmith that know batches",
    )
    cloud_events_source: str = Field(
        default="", description="Have events carry CloudEvents' ce-* headers as well, from this source: a URI or a path"
    )
    app_id: str = Field(default="", description="Who this process is, in messages and connections")
    patience_seconds: Seconds = Field(default=30.0, description="How long starting waits for the broker")
    heartbeat_seconds: Annotated[float, Field(ge=1)] = Field(
        default=10.0, description="A silent connection is given up after about three of these"
    )
    connect_timeout_seconds: Seconds = Field(default=10.0, description="How long one attempt to connect may take")
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=DEFAULT_LIMITS.max_body_bytes, description="The largest body that is sent or taken"
    )
    max_depth: Annotated[int, Field(ge=1, le=190)] = Field(
        default=DEFAULT_LIMITS.max_depth, description="The deepest nesting of a body that is sent or taken"
    )

    metrics_port: Annotated[int, Field(ge=1, le=65535)] | None = Field(
        default=None,
        description="The port on which a running process answers GET /metrics, for Prometheus",
    )
    metrics_address: str = Field(default="0.0.0.0", description="On which address it does")

    @property
    def url(self) -> str:
        """The broker URL with its password; never print it."""
        return self.broker_url.get_secret_value()

    @property
    def shown_url(self) -> str:
        """The broker URL as logs and people may see it."""
        parts = urlsplit(self.url)
        account, at, host = parts.netloc.rpartition("@")
        user, colon, _ = account.partition(":")
        return f"{parts.scheme}://{user}{colon and ':***'}{at}{host}{parts.path}"

    @property
    def in_memory(self) -> bool:
        """Whether messages stay in this process."""
        return urlsplit(self.url).scheme == "memory"

    @property
    def on_redis(self) -> bool:
        """Whether the broker is a Redis server."""
        return urlsplit(self.url).scheme in ("redis", "rediss", "unix")

    @property
    def with_pymessagingframework(self) -> bool:
        """Whether there are services on PyMessagingFramework 2.x to talk to."""
        return self.pymessagingframework or bool(self.pymessagingframework_queues)

    @property
    def limits(self) -> Limits:
        """What a body may be at most."""
        return Limits(self.max_body_bytes, self.max_depth)
