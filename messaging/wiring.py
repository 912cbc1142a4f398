"""From settings to a transport; the one place of this package that names the adapters."""

from __future__ import annotations

from datetime import timedelta

from messaging.errors import SettingsError
from messaging.settings import MessagingSettings
from messaging.transport import Transport


def transport_from(settings: MessagingSettings, *, app_id: str = "") -> Transport:
    """Make the transport that the settings ask for; it is not open yet.

    Args:
        settings: where the broker is, and how to name things there.
        app_id: who this process is, where the settings do not say.

    Raises:
        SettingsError: the client library of that broker is not installed.
    """
    if settings.in_memory:
        from messaging.memory import MemoryTransport

        return MemoryTransport(max_body_bytes=settings.max_body_bytes)
    if settings.on_redis:
        return _on_redis(settings, settings.app_id or app_id)
    from messaging.rabbitmq import RabbitTransport

    return RabbitTransport(
        settings.url,
        prefix=settings.prefix,
        app_id=settings.app_id or app_id,
        queue_type=settings.queue_type,
        max_body_bytes=settings.max_body_bytes,
        patience=timedelta(seconds=settings.patience_seconds),
        heartbeat=timedelta(seconds=settings.heartbeat_seconds),
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
    )


def _on_redis(settings: MessagingSettings, app_id: str) -> Transport:
    try:
        import redis.asyncio  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as missing:
        raise SettingsError(
            f"the broker is {settings.shown_url}, and the client for Redis is not installed. "
            "Install it: pip install 'sagasmith[redis]'"
        ) from missing
    from messaging.redis import RedisTransport

    return RedisTransport(
        settings.url,
        prefix=settings.prefix,
        app_id=app_id,
        survives_restart=settings.redis_survives_restart,
        max_body_bytes=settings.max_body_bytes,
        patience=timedelta(seconds=settings.patience_seconds),
        answer_timeout=timedelta(seconds=settings.heartbeat_seconds),
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
        dead_after=timedelta(seconds=settings.redis_dead_after_seconds),
    )
