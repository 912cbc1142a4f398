"""Our transports keep what every transport keeps; which they are, `conftest.py` says."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from messaging.dialects import Speaking
from messaging.memory import MemoryTransport
from messaging.testing.transports import TransportBackend, TransportSuite


class TestTransports(TransportSuite):
    """The suite that others run on theirs."""


class SpeakingBackend(TransportBackend):
    transport: Speaking

    def __init__(self) -> None:
        self.transport = Speaking(MemoryTransport())

    async def restarted(self) -> Speaking:
        await self.transport.close()
        await self.transport.open()
        return self.transport


class TestSpeaking(TransportSuite):
    """A transport before which another stands keeps what it kept."""

    @pytest.fixture
    async def backend(self) -> AsyncIterator[SpeakingBackend]:
        backend = SpeakingBackend()
        await backend.transport.open()
        yield backend
        await backend.close()
