"""Which acknowledgements a channel owes for what was settled on it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Watermark(Generic[T]):
    """The unsettled deliveries of one channel, oldest first, each with what is kept of it.

    Everything settled is acknowledged at once: the run below the oldest unsettled delivery with a single
    `multiple`, what lies above it one by one. So a slow handler holds back the cheap way of acknowledging
    but never the prefetch, and `multiple` never reaches over anything unsettled. The tag of a `multiple`
    is always one settled just now: the broker treats a tag it no longer knows as an error.
    """

    def __init__(self) -> None:
        self._unsettled: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._unsettled)

    def arrived(self, tag: int, kept: T) -> None:
        """A delivery has come; tags rise."""
        self._unsettled[tag] = kept

    def kept(self, tag: int) -> T | None:
        """What was kept of an unsettled delivery; None when it is settled or unknown."""
        return self._unsettled.get(tag)

    def tags(self) -> list[int]:
        """The unsettled tags, oldest first."""
        return list(self._unsettled)

    def settle(self, tags: Iterable[int]) -> list[tuple[int, bool]]:
        """Mark as settled and return the acknowledgements to send now, as (tag, multiple)."""
        unsettled = self._unsettled
        settled = sorted(tag for tag in tags if unsettled.pop(tag, _ABSENT) is not _ABSENT)
        if not settled:
            return []
        oldest = next(iter(unsettled), settled[-1] + 1)
        below = [tag for tag in settled if tag < oldest]
        run = [(below[-1], len(below) > 1)] if below else []
        return run + [(tag, False) for tag in settled[len(below) :]]

    def clear(self) -> None:
        """Forget all: the channel is gone and everything comes again."""
        self._unsettled.clear()


_ABSENT: object = object()
