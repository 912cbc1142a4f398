"""Metrics for Prometheus, with labels that are bounded: names of services, of message types they handle, of outcomes.

    service.use(Metrics())      # or MESSAGING_METRICS_PORT=9100, which measures all that a process runs

Needs the extra `metrics`.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server
except ImportError as missing:
    raise ImportError("Metrics need the Prometheus client. Install it: pip install 'sagasmith[metrics]'") from missing

from messaging.errors import SettingsError
from messaging.middleware import (
    DeliverNext,
    HandleNext,
    Middleware,
    Outcome,
    PublishNext,
    Received,
    Result,
    Settled,
)
from messaging.transport import Delivery, Outgoing

UNKNOWN: Final = "unknown"
"""The type of what no handler could use: what senders make up is no label."""
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics(Middleware):
    """Counts and times what a service handles and what is published.

    Args:
        registry: where the metrics stand. All `Metrics` of one registry share them.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._of = _collectors.get(registry) or _collectors.setdefault(registry, _Collectors(registry))

    def show_outbox(self, name: str, oldest_seconds: float) -> None:
        """Show how old the oldest message is in the outbox of a service's database."""
        self._of.outbox_oldest.labels(name).set(oldest_seconds)

    async def around_publish(self, outgoing: Outgoing, call_next: PublishNext) -> None:
        """Count it by how it ended."""
        sender, kind = outgoing.envelope.app_id, outgoing.envelope.type
        try:
            await call_next(outgoing)
        except Exception:
            self._of.published.labels(sender, kind, "failed").inc()
            raise
        self._of.published.labels(sender, kind, "sent").inc()

    async def around_handler(self, received: Received, call_next: HandleNext) -> Result:
        """Time it."""
        with self._of.handler_seconds.labels(received.service, received.envelope.type).time():
            return await call_next(received)

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        """Count it by what became of it, and time it as a whole."""
        in_flight, begun = self._of.in_flight.labels(delivery.queue), time.perf_counter()
        with in_flight.track_inprogress():
            settled = await call_next(delivery)
        kind = UNKNOWN if settled.outcome is Outcome.UNUSABLE else delivery.envelope.type
        outcome = "repeated" if settled.by_inbox else settled.outcome.value
        self._of.deliveries.labels(delivery.queue, kind, outcome).inc()
        self._of.delivery_seconds.labels(delivery.queue, kind).observe(time.perf_counter() - begun)
        return settled


class _Collectors:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.deliveries = Counter(
            "messaging_deliveries",
            "What became of deliveries: `repeated`, or a value of `Outcome`",
            ("service", "type", "outcome"),
            registry=registry,
        )
        self.delivery_seconds = Histogram(
            "messaging_delivery_seconds",
            "From taking a delivery to settling it",
            ("service", "type"),
            buckets=SECONDS,
            registry=registry,
        )
        self.handler_seconds = Histogram(
            "messaging_handler_seconds",
            "One run of a handler, whether it returns or raises",
            ("service", "type"),
            buckets=SECONDS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "messaging_deliveries_in_flight", "Deliveries being handled", ("service",), registry=registry
        )
        self.outbox_oldest = Gauge(
            "messaging_outbox_oldest_seconds",
            "Age of the oldest message in the outbox of a service's database",
            ("service",),
            registry=registry,
        )
        self.published = Counter(
            "messaging_published",
            "Messages sent and published, with handlers that raise left out: sent, failed",
            ("sender", "type", "outcome"),
            registry=registry,
        )


_collectors: WeakKeyDictionary[CollectorRegistry, _Collectors] = WeakKeyDictionary()


@asynccontextmanager
async def metrics_served(address: str, port: int) -> AsyncGenerator[None]:
    """Answer `GET /metrics` there for as long as the block lasts.

    Raises:
        SettingsError: the port cannot be listened on.
    """
    try:
        server, thread = start_http_server(port, address)
    except OSError as error:
        raise SettingsError(
            f"MESSAGING_METRICS_PORT: {address}:{port} cannot be listened on: {error}. "
            "Each process on a host needs a port of its own"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
