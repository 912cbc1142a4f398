"""Named places where a test can kill the process, to see that every line is safe to die at.

`ORCHESTRATOR_FAILPOINT=<name>[:<nth>]` kills it (SIGKILL, no clean-up) the first or nth time it gets there.
Unset, which is always so outside tests, reaching one is an empty call.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import contextmanager

VARIABLE = "ORCHESTRATOR_FAILPOINT"


def _nothing(name: str) -> None:
    """Go on."""


def armed(setting: str) -> Callable[[str], None]:
    """Return the function that kills this process at what the setting names."""
    if not setting:
        return _nothing
    wanted, _, nth = setting.partition(":")
    left = int(nth or 1)

    def reached(name: str) -> None:
        nonlocal left
        if name == wanted:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached


reached: Callable[[str], None] = armed(os.environ.get(VARIABLE, ""))
"""Tell that the place of this name was reached."""


@contextmanager
def watched(call: Callable[[str], None]) -> Generator[None]:
    """Have `call` told of each place that is reached while the block lasts; what it raises is raised there.

    Only of those places that ask this module each time, as the engine's do.
    """
    global reached
    before, reached = reached, call
    try:
        yield
    finally:
        reached = before
