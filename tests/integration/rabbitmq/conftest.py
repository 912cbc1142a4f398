"""A broker that several tests here share, because it takes some five seconds to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import started
from tests.support.tls_rabbit import PrivateTlsRabbit


@pytest.fixture(scope="session")
def tls_rabbit() -> Iterator[PrivateTlsRabbit]:
    """A RabbitMQ with TLS, two virtual hosts and a user who may declare nothing. Use names of your own."""
    yield from started(PrivateTlsRabbit())
