"""Processes that run an engine, as they announce themselves: which definitions each of them has."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from orchestrator.instance import Pin
from orchestrator.rising_ids import new_id

DEAD_AFTER: Final = timedelta(seconds=60)
"""A process not heard of for so long runs no more, unless the settings say otherwise."""


@dataclass(frozen=True, slots=True)
class Worker:
    """One process' engine."""

    id: UUID
    host: str
    process_id: int
    pins: tuple[Pin, ...]
    events: tuple[str, ...] = ()
    """The wire names of those it can read."""

    @property
    def definitions(self) -> str:
        """What it has, as its row keeps it."""
        sagas = [[pin.name, pin.version, pin.fingerprint] for pin in self.pins]
        return json.dumps({"sagas": sagas, "events": self.events})


def worker_of(worker_id: UUID, host: str, process_id: int, definitions: str) -> Worker:
    """A worker, from its row."""
    fields = json.loads(definitions)
    pins = tuple(Pin(name, version, fingerprint) for name, version, fingerprint in fields["sagas"])
    return Worker(worker_id, host, process_id, pins, tuple(fields["events"]))


def this_process(pins: Iterable[Pin], events: Iterable[str] = ()) -> Worker:
    """An engine of this process, under an id of its own."""
    return Worker(new_id(), socket.gethostname(), os.getpid(), tuple(pins), tuple(events))
