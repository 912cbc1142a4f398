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


def this_process(pins: Iterable[Pin]) -> Worker:
    """An engine of this process, under an id of its own."""
    return Worker(new_id(), socket.gethostname(), os.getpid(), tuple(pins))


def pins_to_text(pins: Iterable[Pin]) -> str:
    """As the row of a worker keeps them."""
    return json.dumps([[pin.name, pin.version, pin.fingerprint] for pin in pins])


def pins_from_text(text: str) -> tuple[Pin, ...]:
    """From what the row of a worker keeps."""
    return tuple(Pin(name, version, fingerprint) for name, version, fingerprint in json.loads(text))
