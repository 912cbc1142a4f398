"""`saga topology` from a shell, against RabbitMQ."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli import exits
from tests.support.broker import Broker
from tests.unit.cli.conftest import Shell

SHOP = """
from messaging import Command, Event, QueueOptions, Reply, Service

class Charged(Reply): pass
class Charge(Command[Charged]): pass
class OrderPaid(Event): pass

payments = Service("payments")
changed = Service("payments", queue=QueueOptions(delivery_limit=7))

for service in (payments, changed):
    @service.handles(Charge, exchange="billing", key="charge")
    async def charge(command: Charge) -> Charged: return Charged()

    @service.subscribes(OrderPaid, key="orders.*")
    async def paid(event: OrderPaid) -> None: pass
"""
PAYMENTS = "topology_shop:payments"


@pytest.fixture
def saga(broker: Broker, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a folder with a service, and settings that lead to the broker."""
    (tmp_path / "topology_shop.py").write_text(SHOP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESSAGING_BROKER_URL", broker.url)
    monkeypatch.setenv("MESSAGING_PREFIX", prefix)
    broker.service_queue(f"{prefix}payments")
    for milliseconds in (1000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000):
        broker.queue(f"{prefix}payments.retry.{milliseconds}")
    for name in ("billing", "events"):
        broker.exchange(f"{prefix}{name}")
    return Shell(tmp_path)


def test_what_is_shown_is_what_is_applied_and_what_is_applied_compares_as_the_same(saga: Shell, prefix: str) -> None:
    shown = saga("topology", "show", PAYMENTS, "--json").json
    names = [part["name"] for part in shown if part["part"] != "binding"]
    assert names == [f"{prefix}payments.dead", f"{prefix}payments", f"{prefix}billing", f"{prefix}events"]
    assert {"part": "binding", "queue": names[1], "exchange": names[3], "routing_key": "orders.*"} in shown

    before = saga("topology", "check", PAYMENTS)
    assert before.code == exits.FAILED
    assert f"missing   queue '{prefix}payments'" in before.out

    for _ in range(2):
        applied = saga("topology", "apply", PAYMENTS)
        assert (applied.code, applied.out) == (0, "Declared 2 queues, 2 exchanges, 2 bindings.\n")
    after = saga("topology", "check", PAYMENTS, "--json")
    assert after.code == 0
    assert [part["state"] for part in after.json].count("same") == 4


def test_a_changed_definition_is_a_difference_that_check_tells_and_apply_refuses(saga: Shell, prefix: str) -> None:
    assert saga("topology", "apply", PAYMENTS).code == 0
    checked = saga("topology", "check", "topology_shop:changed")
    assert checked.code == exits.FAILED
    assert checked.out.splitlines()[1:4] == [
        f"different queue '{prefix}payments'",
        "                    wanted  on the broker",
        "  x-delivery-limit  7       20",
    ]
    refused = saga("topology", "apply", "topology_shop:changed")
    assert refused.code == exits.FAILED
    assert "rabbitmqctl delete_queue" in refused.err


def test_a_passive_run_names_the_command_that_creates_what_is_missing(
    saga: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESSAGING_TOPOLOGY", "passive")
    refused = saga("run", PAYMENTS)
    assert refused.code == exits.FAILED
    assert f"MESSAGING_TOPOLOGY=passive saga topology apply {PAYMENTS}" in refused.err
    assert saga("topology", "apply", PAYMENTS).out.startswith("Declared 8 queues")


def test_without_rabbitmq_there_is_nothing_to_compare_with(saga: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_BROKER_URL", "memory://")
    refused = saga("topology", "check", PAYMENTS)
    assert refused.code == exits.USAGE
    assert "--broker-url" in refused.err
    assert saga("topology", "show", PAYMENTS).code == 0
