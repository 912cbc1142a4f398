"""When to try again, as a pure function: no clock, no randomness.

Jitter is derived from a seed (an id), so the same attempt always waits the same time, while many
that failed together do not come back together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from zlib import crc32


@dataclass(frozen=True, slots=True)
class Retry:
    """A policy: how often to try, and how long to wait in between.

    The first `immediate` repetitions follow at once: for what passes in a moment. Then the wait is `backoff`,
    and `factor` times as long each time, never over `cap`.
    `jitter` takes up to that share of each wait away (0 = none, 1 = anything down to zero).
    `max_attempts` counts the first try too; None tries for ever.
    """

    max_attempts: int | None = 5
    backoff: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    cap: timedelta = timedelta(minutes=5)
    jitter: float = 0.2
    immediate: int = 0

    def __post_init__(self) -> None:
        if self.max_attempts is not None and self.max_attempts < 1:
            raise ValueError(f"max_attempts must be 1 or more, or None for ever; not {self.max_attempts}")
        if self.immediate < 0:
            raise ValueError(f"immediate must not be negative; not {self.immediate}")
        if self.backoff < timedelta(0) or self.cap < timedelta(0):
            raise ValueError(f"backoff and cap must not be negative; not {self.backoff}, {self.cap}")
        if not (math.isfinite(self.factor) and self.factor >= 1 and 0 <= self.jitter <= 1):
            raise ValueError(f"factor must be 1 or more, jitter 0 to 1; not {self.factor}, {self.jitter}")


RetryPolicy: TypeAlias = Retry
NEVER = Retry(max_attempts=1)


@dataclass(frozen=True, slots=True)
class Again:
    """Try again, after this time."""

    after: timedelta


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The policy is used up."""

    tries: int


def next_attempt(policy: Retry, tries: int, *, seed: str) -> Again | GiveUp:
    """Say what follows after `tries` tries that have failed.

    Args:
        policy: how often and how long.
        tries: how many have been made, 1 or more.
        seed: what tells this attempt from others, such as a message id; the jitter comes from it.
    """
    if tries < 1:
        raise ValueError(f"tries counts those already made, so it is 1 or more; not {tries}")
    if policy.max_attempts is not None and tries >= policy.max_attempts:
        return GiveUp(tries)
    return Again(wait_before(policy, tries, seed=seed))


def wait_before(policy: Retry, tries: int, *, seed: str) -> timedelta:
    """Return how long to wait after `tries` failed tries, whatever `max_attempts` says."""
    waits = tries - policy.immediate
    if waits < 1:
        return timedelta(0)
    cap = policy.cap.total_seconds()
    try:
        full = min(policy.backoff.total_seconds() * policy.factor ** (waits - 1), cap)
    except OverflowError:
        full = cap
    share = crc32(f"{seed}/{tries}".encode()) / 2**32
    return timedelta(seconds=full * (1 - policy.jitter * share))
