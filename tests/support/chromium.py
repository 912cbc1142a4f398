"""Where the browser is that tests of pages run: Debian's Chromium, unless `SAGASMITH_TEST_CHROMIUM` names another."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

VARIABLE = "SAGASMITH_TEST_CHROMIUM"
DEBIAN_PACKAGES = ("chromium", "fonts-dejavu-core")
PICTURES = Path(__file__).parents[2] / "build" / "screenshots"
"""Where a run of the tests leaves what it saw of pages, for people to look at."""
_NAMES = ("chromium", "chromium-browser", "google-chrome")


class BrowserMissing(Exception):
    """There is no browser; the text says what to do."""

    def __init__(self) -> None:
        super().__init__(
            f"no Chromium to look at pages with. Set {VARIABLE}, or install it (Debian: apt-get install chromium)"
        )


def chromium_program() -> Path:
    """The browser to run.

    Raises:
        BrowserMissing: there is none.
    """
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        raise BrowserMissing
    return Path(found)
