"""What is held: versions of definitions whose sagas do not begin until they are released."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from orchestrator.instance import Pin


@dataclass(frozen=True, slots=True)
class Hold:
    """A version of a definition that is held, or all versions of it."""

    id: UUID
    saga: str
    """The definition's name."""
    version: int | None
    """None: all of them."""
    held_at: datetime
    by: str
    reason: str

    @property
    def which(self) -> str:
        """In words."""
        return named(self.saga, self.version)

    def concerns(self, name: str, version: int) -> bool:
        """Whether it holds this version."""
        return self.saga == name and self.version in (None, version)


def named(saga: str, version: int | None) -> str:
    """A version of a definition in words, or all of them."""
    return f"{saga} (all versions)" if version is None else f"{saga} v{version}"


def hold_of(holds: Iterable[Hold], pin: Pin) -> Hold | None:
    """What holds this version, if anything does."""
    return next((hold for hold in holds if hold.concerns(pin.name, pin.version)), None)
