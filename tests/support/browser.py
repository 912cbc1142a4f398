"""A browser that tests drive, and axe-core, which looks for what shuts people out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.cached import node_with
from tests.support.chromium import PICTURES, chromium_program

AXE = "4.14.1"


def shoot(page: Page, name: str) -> None:
    """Keep a picture of a page, whole, in place of that of the run before."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", full_page=True)


@contextmanager
def launched() -> Iterator[Browser]:
    """The browser, without a window; sandboxed unless we are root, for whom it has no sandbox."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=arguments)
        try:
            yield browser
        finally:
            browser.close()


def serious_faults(page: Page) -> list[Any]:
    """What axe-core finds on a page that is serious or worse: rule, and where."""
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(_axe_source())
    found = page.evaluate("async () => (await axe.run(document, {resultTypes: ['violations']})).violations")
    grave = [one for one in found if one["impact"] in ("serious", "critical")]
    return [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in grave]


def _axe_source() -> str:
    modules = Path(node_with("axe-core", AXE)["NODE_PATH"])
    return (modules / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
