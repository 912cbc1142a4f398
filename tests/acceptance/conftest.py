"""For tests that run the real programs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.programs import EXAMPLES, Programs

sys.path.insert(0, str(EXAMPLES))  # as for whoever runs an example from that folder


@pytest.fixture
def programs() -> Iterator[Programs]:
    """Starts programs in a folder of the test's own, killed at its end."""
    with Programs() as programs:
        yield programs
