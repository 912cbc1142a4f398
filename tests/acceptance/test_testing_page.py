"""The page on testing: its tests pass as they stand, against the program of the README."""

from __future__ import annotations

import re
import sys

from tests.support.programs import ROOT, Programs

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "testing.md").read_text()


def test_the_tests_on_the_page_pass(programs: Programs) -> None:
    (shop,) = re.findall(r"```python\n(from messaging.*?class PlaceOrder.*?)```", README, re.DOTALL)
    (programs.folder / "shop.py").write_text(shop)
    written = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", PAGE, re.DOTALL)
    for name, program in written:
        (programs.folder / name).write_text(program)

    options = ("-q", "-s", "-o", "asyncio_mode=auto")
    tests = (name for name, _ in written)
    said = programs.done(programs.start(sys.executable, "-m", "pytest", *options, *tests))

    print(said)
    assert re.search(r"PlaceOrder: \d+ states, \d+ transitions, \d+ paths", said)
    assert "everything within the bounds was seen" in said
