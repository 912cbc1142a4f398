"""For tests that run the real programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest

from messaging.rabbitmq.topology import DELAY_STEPS
from tests.support.broker import Broker
from tests.support.programs import EXAMPLES, Programs

sys.path.insert(0, str(EXAMPLES))  # as for whoever runs an example from that folder


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Starts programs in a folder of the test's own, killed at its end."""
    with Programs() as programs:
        yield programs


@pytest.fixture
def service_queue(broker: Broker) -> Callable[[str], str]:
    """Has a service's queue deleted at the end, with its dead letters and what was put off."""
    return lambda name: name_service_queue(broker, name)


def name_service_queue(broker: Broker, name: str) -> str:
    """Have a service's queue deleted with the broker's end, and all that belongs to it; returns the name."""
    broker.queue(f"{name}.dead")
    for step in DELAY_STEPS:
        broker.queue(f"{name}.delay.{round(step.total_seconds() * 1000)}")
    return broker.queue(name)
