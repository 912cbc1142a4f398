"""Static checks of saga definitions: what works as written, and yet goes wrong one day.

Pure: classes and their source are looked at, nothing is run. What cannot work at all is refused earlier, when
the class is created.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from orchestrator.checking import answers, known, locking, names, policies
from orchestrator.checking.findings import Finding, Level
from orchestrator.checking.stranded import stranded
from orchestrator.definition import Saga

__all__ = ["Finding", "Level", "check", "stranded"]


def check(sagas: Iterable[type[Saga[Any]]]) -> list[Finding]:
    """Look at definitions, alone and against each other; the worst findings come first."""
    every = list(dict.fromkeys(sagas))
    found = [*names.collisions(every), *locking.conflicts(every)]
    for saga in every:
        for rules in (known.findings, answers.findings, policies.findings):
            found += rules(saga)
    return sorted(found, key=lambda one: (list(Level).index(one.level), one.file, one.line, one.rule, one.text))
