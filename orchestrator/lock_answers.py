"""What sagas are told of the resources they asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from orchestrator.granting import LOCK_DEADLOCK, LOCKED, Request, Settled
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import LocksDenied, LocksGranted
from orchestrator.store_records import NewSignal

_WHY: Final = {
    LOCKED: "another saga holds one of {resources}",
    LOCK_DEADLOCK: "to wait for {resources} would have been to wait in a circle",
}


def answers_of(settled: Settled) -> list[NewSignal]:
    """The signals to keep, for each step that asked."""
    return [*map(_granted, settled.granted), *_denied(settled)]


def _granted(request: Request) -> NewSignal:
    return _signal(request, LocksGranted(request.step))


def _denied(settled: Settled) -> Iterator[NewSignal]:
    for request, code in settled.denied:
        text = _WHY[code].format(resources=", ".join(sorted(request.resources)))
        yield _signal(request, LocksDenied(request.step, code, text))


def _signal(request: Request, answer: LocksGranted | LocksDenied) -> NewSignal:
    row = signal_to_row(answer)
    assert row is not None
    return NewSignal(request.saga_id, *row)
