"""From settings to a transport; the one place of this package that names the adapters."""

from __future__ import annotations

from datetime import timedelta

from messaging.settings import MessagingSettings
from messaging.transport import Transport


def transport_from(settings: MessagingSettings, *, app_id: str = "") -> Transport:
    """Make the transport that the settings ask for; it is not open yet.

    Args:
        settings: where the broker is, and how to name things there.
        app_id: who this process is, where the settings do not say.
    """
    if settings.in_memory:
        from messaging.memory import MemoryTransport

        return MemoryTransport(max_body_bytes=settings.max_body_bytes)
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
