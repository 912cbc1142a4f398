"""Fixtures for tests of sagas. Loaded by pytest wherever this package is installed; imports nothing until one is used.

saga_harness    makes a `SagaHarness`; the test fails if messages were left over that fit no saga
explore_saga    `explore`, whose report is shown at the end of the run
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from orchestrator.definition import Saga
    from orchestrator.testing import Report, SagaHarness

_EXPLORED: Final = "explored saga"


@pytest.fixture
def saga_harness() -> Iterator[Callable[..., SagaHarness]]:
    """The way to make a `SagaHarness`: call it with saga classes. What is left unmatched fails the test."""
    from orchestrator.testing import SagaHarness

    made: list[SagaHarness] = []

    def make(*sagas: type[Saga[Any]], **options: Any) -> SagaHarness:
        harness = SagaHarness(*sagas, **options)
        made.append(harness)
        return harness

    yield make
    left = [reason for harness in made for reason in harness.unmatched]
    assert not left, f"messages came that fit no saga: {left}"


@pytest.fixture
def explore_saga(record_property: Callable[[str, object], None]) -> Callable[..., Report]:
    """Do as `explore` does, and show the report at the end of the run."""
    from orchestrator.testing import explore

    def explored(saga: type[Saga[Any]], state: Any, **options: Any) -> Report:
        report = explore(saga, state, **options)
        record_property(_EXPLORED, str(report))
        return report

    return explored


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was explored."""
    passed = terminalreporter.stats.get("passed", ())
    reports = [text for test in passed for name, text in test.user_properties if name == _EXPLORED]
    if reports:
        terminalreporter.section("sagas explored")
        for text in reports:
            terminalreporter.write_line(text)
