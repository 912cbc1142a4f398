"""Who is measured: the bus, raw aio-pika, and with --peers other people's buses in environments of their own."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import pytest

from tests.support.cached import python_with


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that does each task, and what it needs beside it."""

    name: str
    module: str
    package: str = ""
    """Pinned, as pip takes it; empty for what runs in our own environment."""

    def python(self) -> str:
        """Its interpreter: ours, or that of an environment which is installed the first time and kept in the cache.

        Raises:
            SystemExit: the package could not be installed.
        """
        return python_of(self.package) if self.package else sys.executable


def python_of(*packages: str) -> str:
    """The interpreter of an environment of these packages, which is installed the first time and kept in the cache.

    Raises:
        SystemExit: it could not be installed.
    """
    print(f"environment of {' '.join(packages)}: installed where it is not there yet", file=sys.stderr, flush=True)
    try:
        return str(python_with(*packages))
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise SystemExit(str(error)) from error


BASE = "raw aio-pika"
OURS = (Contender(BASE, "benchmarks.bus.raw"), Contender("the bus", "benchmarks.bus.ours"))
PEERS = (
    Contender("FastStream", "benchmarks.bus.peers.with_faststream", "faststream[rabbit]==0.7.8"),
    Contender("PikaBus", "benchmarks.bus.peers.with_pikabus", "pikabus==2.0.1"),
    Contender("PyMessagingFramework", "benchmarks.bus.peers.with_pymessagingframework", "PyMessagingFramework==2.0.1"),
)
