"""Who runs sagas: ours in several ways, the bare loop beside them, and with --peers other people's engines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.bus.contenders import python_of

BASE: Final = "bare aio-pika"
BASE_ALONE: Final = f"{BASE}, one at a time"
COALESCED: Final = "..., coalesced"
_DBOS: Final = "dbos==3.4.0"


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that runs sagas, as a command of one run."""

    name: str
    command: Callable[[argparse.Namespace, str, str], list[str]]
    """Given the options, an empty database and a prefix for queues."""
    package: str = ""
    """Pinned, as pip takes it; empty for what runs in our own environment."""

    def python(self) -> str:
        """Its interpreter: ours, or that of an environment of its own.

        Raises:
            SystemExit: the package could not be installed.
        """
        return python_of(self.package) if self.package else sys.executable


def _bare(name: str, share: float, in_flight: int) -> Contender:
    def command(options: argparse.Namespace, _: str, __: str) -> list[str]:
        return ["benchmarks.bare", options.amqp, *_amount(options, share, in_flight)]

    return Contender(name, command)


def _distributed(name: str, share: float, in_flight: int, *more: str) -> Contender:
    def command(options: argparse.Namespace, database: str, prefix: str) -> list[str]:
        where = ["--broker", options.amqp, "--prefix", prefix, "--database", database]
        return ["benchmarks.saga_run", "distributed", *where, *_amount(options, share, in_flight), *more]

    return Contender(name, command)


def _embedded(name: str, share: float, in_flight: int, *more: str) -> Contender:
    def command(options: argparse.Namespace, _: str, __: str) -> list[str]:
        return ["benchmarks.saga_run", "embedded", *_amount(options, share, in_flight), *more]

    return Contender(name, command)


def _dbos(name: str, share: float, in_flight: int, *more: str) -> Contender:
    def command(options: argparse.Namespace, database: str, _: str) -> list[str]:
        return ["benchmarks.peers.with_dbos", "--database", database, *_amount(options, share, in_flight), *more]

    return Contender(name, command, _DBOS)


def _amount(options: argparse.Namespace, share: float, in_flight: int) -> list[str]:
    return ["--sagas", str(max(int(options.sagas * share), 2)), "--in-flight", str(in_flight)]


_OURS: Final = (
    _bare(BASE, 1, 200),
    _distributed("RabbitMQ + PostgreSQL", 1, 200),
    _distributed(COALESCED, 1, 200, "--coalesced"),
    _distributed("..., two orchestrators", 1, 200, "--orchestrators", "2"),
    _distributed("..., refused at step 3, two undos", 0.5, 200, "--saga", "refused"),
    _distributed("..., refused, coalesced", 0.5, 200, "--saga", "refused", "--coalesced"),
    _distributed("..., ten steps at once", 0.2, 50, "--saga", "parallel"),
    _distributed("..., ForEach of 500 items", 0.001, 2, "--saga", "items"),
    _embedded("embedded (memory, SQLite)", 1, 200),
    _embedded("embedded, refused at step 3, two undos", 0.5, 200, "--saga", "refused"),
    _bare(BASE_ALONE, 0.05, 1),
    _distributed("RabbitMQ + PostgreSQL, one at a time", 0.05, 1),
    _embedded("embedded, one at a time", 0.05, 1),
)
_PEERS: Final = (
    _dbos("DBOS, PostgreSQL", 0.1, 100),
    _dbos("DBOS, refused at step 3, two undos", 0.1, 100, "--refused"),
    _dbos("DBOS, PostgreSQL, one at a time", 0.03, 1),
)


def contenders(*, peers: bool) -> tuple[Contender, ...]:
    """Who is measured, in this order within each round."""
    return _OURS + _PEERS if peers else _OURS
