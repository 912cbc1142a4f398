"""For tests that run the real programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.broker import Broker
from tests.support.programs import EXAMPLES, Programs

sys.path.insert(0, str(EXAMPLES))  # as for whoever runs an example from that folder


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Starts programs in a folder of the test's own, killed at its end."""
    with Programs() as programs:
        yield programs


@pytest.fixture
def programs_on_rabbit(amqp_url: str, prefix: str, broker: Broker) -> Iterator[Programs]:
    """The same over RabbitMQ; they end before their queues are deleted, or they would declare them again."""
    broker.exchange(f"{prefix}events")
    with Programs({"MESSAGING_BROKER_URL": amqp_url, "MESSAGING_PREFIX": prefix}) as programs:
        yield programs
