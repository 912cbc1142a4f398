"""From settings to a transport; the one place of this package that names the adapters."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from messaging.dead_letters import TransportWithDeadLetters
from messaging.errors import SettingsError
from messaging.settings import MessagingSettings
from messaging.tls import tls_context
from messaging.transport import Transport

if TYPE_CHECKING:
    from messaging.dialects import Dialect
    from messaging.rabbitmq.definitions import Layout
    from messaging.rabbitmq.inspection import Inspection


def transport_from(settings: MessagingSettings, *, app_id: str = "") -> Transport:
    """Make the transport that the settings ask for; it is not open yet.

    Args:
        settings: where the broker is, and how to name things there.
        app_id: who this process is, where the settings do not say.

    Raises:
        SettingsError: the client library of that broker is not installed, or a setting of TLS cannot be used, or
            batches would go to a queue of another framework.
    """
    transport, dialects = _coalescing(settings, bare_transport_from(settings, app_id=app_id)), _dialects(settings)
    if not dialects:
        return transport
    from messaging.dialects import Speaking

    return Speaking(transport, *dialects)


def _coalescing(settings: MessagingSettings, transport: Transport) -> Transport:
    if not settings.coalesce_to:
        return transport
    if foreign := sorted({*settings.coalesce_to} & {*settings.pymessagingframework_queues}):
        raise SettingsError(
            f"MESSAGING_COALESCE_TO and MESSAGING_PYMESSAGINGFRAMEWORK_QUEUES both name {', '.join(foreign)}: "
            "PyMessagingFramework takes no batches. Take it out of one of them"
        )
    from messaging.coalescing import Coalescing

    return Coalescing(transport, settings.coalesce_to, max_body_bytes=settings.max_body_bytes)


def _dialects(settings: MessagingSettings) -> list[Dialect]:
    dialects: list[Dialect] = []
    if settings.cloud_events_source:
        from messaging.dialects.cloudevents import CloudEvents

        dialects.append(CloudEvents(settings.cloud_events_source))
    if settings.with_pymessagingframework:
        from messaging.dialects.pymessagingframework import PyMessagingFramework

        dialects.append(PyMessagingFramework(frozenset(settings.pymessagingframework_queues)))
    return dialects


def bare_transport_from(settings: MessagingSettings, *, app_id: str = "") -> TransportWithDeadLetters:
    """Make the transport without anything around it, to look at dead letters; they are replayed as they came.

    Raises:
        SettingsError: as `transport_from`.
    """
    context = tls_context(settings)
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
        passive=settings.topology == "passive",
        max_body_bytes=settings.max_body_bytes,
        patience=timedelta(seconds=settings.patience_seconds),
        heartbeat=timedelta(seconds=settings.heartbeat_seconds),
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
        ssl_context=context,
        server_name=settings.tls_server_name,
        transient_exchanges=_transient(settings),
    )


def _transient(settings: MessagingSettings) -> frozenset[str]:
    if not settings.with_pymessagingframework:
        return frozenset()
    from messaging.dialects.pymessagingframework import EXCHANGES

    return frozenset(EXCHANGES)


def layout_from(settings: MessagingSettings) -> Layout:
    """How names and queues look on RabbitMQ with these settings; no broker is needed to know."""
    from messaging.rabbitmq.definitions import Layout

    passive = settings.topology == "passive"
    return Layout(settings.prefix, settings.queue_type, standing_delays=passive, transient=_transient(settings))


def inspection_from(settings: MessagingSettings, *, app_id: str) -> Inspection:
    """Make what declares and compares the topology without running anything; to be entered.

    Raises:
        SettingsError: the broker is not RabbitMQ, or a setting of TLS cannot be used.
    """
    if settings.in_memory or settings.on_redis:
        raise SettingsError(
            f"the broker is {settings.shown_url}, where whoever consumes creates all it needs. "
            "This is for RabbitMQ: set MESSAGING_BROKER_URL, or say --broker-url amqp://..."
        )
    from messaging.rabbitmq.broker import Broker
    from messaging.rabbitmq.inspection import Inspection

    broker = Broker(
        settings.url,
        settings.app_id or app_id,
        connect_timeout=timedelta(seconds=settings.connect_timeout_seconds),
        ssl_context=tls_context(settings),
        server_name=settings.tls_server_name,
    )
    return Inspection(broker, layout_from(settings), patience=timedelta(seconds=settings.patience_seconds))


def _on_redis(settings: MessagingSettings, app_id: str) -> TransportWithDeadLetters:
    if settings.topology == "passive":
        raise SettingsError("MESSAGING_TOPOLOGY=passive is for RabbitMQ; on Redis whoever consumes creates its keys")
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
