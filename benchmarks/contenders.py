"""Who runs sagas: ours in several ways, the bare loop beside them, and with --peers other people's engines."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from benchmarks.bus.contenders import python_of
from tests.support.cached import node_with

BASE: Final = "bare aio-pika"
BASE_ALONE: Final = f"{BASE}, one at a time"
COALESCED: Final = "..., coalesced"
_DBOS: Final = "dbos==3.4.0"
_RESTATE: Final = ("restate-sdk==1.3.0", "hypercorn==0.18.0", "aiohttp==3.14.5")
_RESTATE_SERVER: Final = ("@restatedev/restate-server", "1.7.12")


@dataclass(frozen=True, slots=True)
class Contender:
    """A program that runs sagas, as a command of one run."""

    name: str
    command: Callable[[argparse.Namespace, str, str], list[str]]
    """Given the options, an empty database and a prefix for queues."""
    packages: tuple[str, ...] = ()
    """Pinned, as pip takes them; empty for what runs in our own environment."""

    def python(self) -> str:
        """Its interpreter: ours, or that of an environment of its own.

        Raises:
            SystemExit: the package could not be installed.
        """
        return python_of(*self.packages) if self.packages else sys.executable


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


def _dbos(name: str, share: float, in_flight: int, *more: str, sqlite: bool = False) -> Contender:
    def command(options: argparse.Namespace, database: str, _: str) -> list[str]:
        where = [] if sqlite else ["--database", database]
        return ["benchmarks.peers.with_dbos", *where, *_amount(options, share, in_flight), *more]

    return Contender(name, command, (_DBOS,))


def _restate(name: str, share: float, in_flight: int, *more: str) -> Contender:
    def command(options: argparse.Namespace, _: str, __: str) -> list[str]:
        where = ["--server", str(restate_server())]
        return ["benchmarks.peers.with_restate", *where, *_amount(options, share, in_flight), *more]

    return Contender(name, command, _RESTATE)


def restate_server() -> Path:
    """Restate's server, which is installed from npm the first time and kept in the cache.

    Raises:
        SystemExit: it could not be installed, or is not there for this machine.
    """
    try:
        modules = Path(node_with(*_RESTATE_SERVER)["NODE_PATH"])
    except (pytest.skip.Exception, pytest.fail.Exception) as error:
        raise SystemExit(str(error)) from error
    found = next(modules.glob("@restatedev/restate-server-*/bin/restate-server"), None)
    if found is None:
        raise SystemExit(f"{' '.join(_RESTATE_SERVER)} has no server for this machine (looked below {modules})")
    return found


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
    _dbos("DBOS, SQLite", 0.05, 100, sqlite=True),
    _dbos("DBOS, SQLite, refused at step 3, two undos", 0.05, 100, "--refused", sqlite=True),
    _dbos("DBOS, SQLite, one at a time", 0.02, 1, sqlite=True),
    _restate("Restate", 0.2, 100),
    _restate("Restate, refused at step 3, two undos", 0.2, 100, "--refused"),
    _restate("Restate, one at a time", 0.03, 1),
)


def contenders(*, peers: bool) -> tuple[Contender, ...]:
    """Who is measured, in this order within each round."""
    return _OURS + _PEERS if peers else _OURS
