"""What every transport keeps, as tests to run on a broker of one's own. Needs pytest and pytest-asyncio.

class TestMyTransport(TransportSuite):
    @pytest_asyncio.fixture
    async def backend(self) -> AsyncIterator[MyBackend]:
        backend = MyBackend()          # a TransportBackend
        await backend.transport.open()
        yield backend
        await backend.close()
"""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

_PARTS = ("publishing", "consuming", "routing", "batching")
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from messaging.testing.transports.backend import TransportBackend  # noqa: E402 - rewriting has to know before
from messaging.testing.transports.batching import BatchingSuite  # noqa: E402
from messaging.testing.transports.consuming import ConsumingSuite  # noqa: E402
from messaging.testing.transports.publishing import PublishingSuite  # noqa: E402
from messaging.testing.transports.routing import RoutingSuite  # noqa: E402

__all__ = ["TransportBackend", "TransportSuite"]


class TransportSuite(PublishingSuite, ConsumingSuite, RoutingSuite, BatchingSuite):
    """All that the bus relies on. What a transport does not promise (`Transport.promises`) is skipped.

    Subclass it as `Test...` and give it a fixture `backend`, which makes a `TransportBackend` for each test.
    """

    pytestmark: ClassVar[Any] = pytest.mark.asyncio
