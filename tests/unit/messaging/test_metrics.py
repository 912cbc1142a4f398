"""What is counted, under labels that senders cannot make up."""

from __future__ import annotations

import asyncio
import urllib.request
from datetime import timedelta

import pytest
from prometheus_client import CollectorRegistry

from messaging import envelope as wire
from messaging.bus import Bus
from messaging.context import Context
from messaging.errors import SettingsError, Unroutable
from messaging.memory import MemoryTransport
from messaging.messages import Command, Event, Failure, Reply
from messaging.metrics import Metrics
from messaging.retry import Retry
from messaging.service import Service
from messaging.serving import measured, serving
from messaging.settings import MessagingSettings
from tests.support.private import free_ports
from tests.unit.messaging.support import running

SOON = Retry(max_attempts=2, backoff=timedelta(0))


class Charge(Command[Reply]):
    cents: int = 1


class Paid(Event):
    pass


def payments(registry: CollectorRegistry | None = None) -> Service:
    service = Service("payments", retry=SOON)

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Reply | Failure:
        if command.cents == 66:
            raise ValueError("evil")
        context.publish(Paid())
        return Failure(reason="unlucky") if command.cents == 13 else Reply()

    if registry is not None:
        service.use(Metrics(registry))
    return service


def counted(registry: CollectorRegistry, name: str) -> dict[tuple[str, ...], float]:
    """The values of a metric, by what its labels say."""
    samples = [sample for metric in registry.collect() for sample in metric.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


async def test_deliveries_are_counted_by_what_became_of_them() -> None:
    registry = CollectorRegistry()
    async with running(payments(registry)) as asking:
        for cents in (1, 1, 13, 66):
            await asking.ask(Charge(cents=cents))
        await asking.send(Charge(cents=66), reply_to="")
        await asking.dead_letter()
        await asking.send_raw(wire.Envelope("m1", b"{}", "made-up-by-a-sender", reply_to="replies"))
        await asking.reply()

    assert counted(registry, "messaging_deliveries_total") == {
        ("payments", "charge", "success"): 2,
        ("payments", "charge", "failure"): 1,
        ("payments", "charge", "retry"): 1,
        ("payments", "charge", "put-off"): 1,
        ("payments", "charge", "dead-lettered"): 1,
        ("payments", "unknown", "unusable"): 1,
    }
    assert counted(registry, "messaging_handler_seconds_count") == {("payments", "charge"): 6}
    assert counted(registry, "messaging_delivery_seconds_count")["payments", "charge"] == 6
    assert counted(registry, "messaging_published_total") == {("payments", "paid", "sent"): 3}


async def test_what_is_being_handled_is_in_flight() -> None:
    registry, service = CollectorRegistry(), Service("payments")
    begun, go_on = asyncio.Event(), asyncio.Event()

    @service.handles(Charge)
    async def charge(command: Charge) -> Reply:
        begun.set()
        await go_on.wait()
        return Reply()

    service.use(Metrics(registry))
    async with running(service) as asking:
        await asking.send(Charge())
        await begun.wait()
        during = counted(registry, "messaging_deliveries_in_flight")
        go_on.set()
        await asking.reply()

    assert during == {("payments",): 1}
    assert counted(registry, "messaging_deliveries_in_flight") == {("payments",): 0}


async def test_a_bus_counts_what_it_sends_and_what_could_not_be_sent() -> None:
    registry = CollectorRegistry()
    async with Bus(MemoryTransport(), name="shop") as bus:
        bus.use(Metrics(registry))
        await bus.publish(Paid())
        with pytest.raises(Unroutable):
            await bus.send(Charge(), to="nowhere")

    assert counted(registry, "messaging_published_total") == {
        ("shop", "paid", "sent"): 1,
        ("shop", "charge", "failed"): 1,
    }


def test_services_of_one_process_share_the_metrics_of_a_registry() -> None:
    registry = CollectorRegistry()

    Metrics(registry)
    Metrics(registry)


async def test_a_port_in_the_settings_measures_each_service_once() -> None:
    (port,) = free_ports(1)
    settings = MessagingSettings(metrics_port=port, metrics_address="127.0.0.1")
    by_setting, by_itself = payments(), Service("mailer")

    @by_itself.handles(Charge)
    async def charge(command: Charge) -> Reply:
        return Reply()

    by_itself.use(Metrics())
    transport = MemoryTransport()
    async with (
        measured(settings) as middleware,
        serving([by_setting, by_itself], transport, middleware=middleware),
        Bus(transport) as bus,
    ):
        await bus.request(Charge(), to="payments")
        await bus.request(Charge(), to="mailer")
        text = await asyncio.to_thread(scraped, port)

    assert 'messaging_deliveries_total{outcome="success",service="payments",type="charge"} 1.0' in text
    assert 'messaging_deliveries_total{outcome="success",service="mailer",type="charge"} 1.0' in text


async def test_a_port_that_is_taken_is_told() -> None:
    settings = MessagingSettings(metrics_port=free_ports(1)[0], metrics_address="127.0.0.1")
    async with measured(settings):
        with pytest.raises(SettingsError, match=f"{settings.metrics_port} cannot be listened on"):
            async with measured(settings):
                """Never entered."""


async def test_without_a_port_nothing_is_measured() -> None:
    async with measured(MessagingSettings()) as middleware:
        assert middleware == ()


def scraped(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
    return text
