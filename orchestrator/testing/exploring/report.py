"""What an exploration has to say: that all is well and how much was seen, or what is broken and how it comes about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


class RuleBroken(AssertionError):
    """A rule does not hold. The text is the shortest story of how, and a test that replays it.

    Attributes:
        rule: what is broken, in words.
        story: the way there, an action a line.
        test: source of a test.
    """

    def __init__(self, saga: str, rule: str, story: str, test: str) -> None:
        self.rule, self.story, self.test = rule, story, test
        super().__init__(
            f"{saga}: {rule}\n\nThe shortest way there:\n\n{story}\n\nAs a test, to be kept until it passes:\n\n{test}"
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What an exploration has seen, without any rule broken. Print it."""

    saga: str
    states: int
    """Different worlds: the saga with all messages under way and all that participants did."""
    transitions: int
    paths: int
    """Different ways from the start; one that comes to where more was tried already ends there."""
    ends: Mapping[str, int]
    """Worlds in which nothing more can happen, by the saga's status there."""
    seconds: float
    bounds: Mapping[str, int | float]
    cut_off: str = ""
    """Which bound ended the search before all was seen; empty if none did."""

    @property
    def complete(self) -> bool:
        """Whether everything within the bounds was seen."""
        return not self.cut_off

    def __str__(self) -> str:
        seen = "everything within the bounds was seen"
        if self.cut_off:
            seen = f"CUT OFF by {self.cut_off}: not all was seen"
        ends = ", ".join(f"{status} {count}" for status, count in sorted(self.ends.items()))
        bounds = ", ".join(f"{name}={value}" for name, value in self.bounds.items())
        return (
            f"{self.saga}: {self.states} states, {self.transitions} transitions, {self.paths} paths "
            f"in {self.seconds:.1f} s; {seen}\n  ends: {ends}\n  bounds: {bounds}"
        )
