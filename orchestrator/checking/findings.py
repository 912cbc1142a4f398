"""What a check says: how bad, where, what, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from orchestrator.checking.source import Place, place_of
from orchestrator.definition import Saga


class Level(StrEnum):
    """How bad."""

    ERROR = "error"
    """Some saga will go wrong."""
    WARNING = "warning"
    """It may, or something written has no effect."""
    ADVICE = "advice"
    """It may well be meant so."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found."""

    level: Level
    rule: str
    saga: str
    """Name and version, such as `create-order v1`."""
    subject: str
    """The class that is meant."""
    file: str
    line: int
    """Where it stands; 0 when its source cannot be found."""
    text: str
    remedy: str


def finding(
    level: Level, rule: str, saga: type[Saga[Any]], cls: type, text: str, remedy: str, *, at: Place | None = None
) -> Finding:
    """A finding about a class of a saga, at the class unless a place is given."""
    place = at or place_of(cls)
    return Finding(level, rule, f"{saga.name} v{saga.version}", cls.__name__, place.file, place.line, text, remedy)
