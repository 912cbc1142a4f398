"""Programs that read files which we ship for others: `promtool` of Prometheus, `systemd-analyze` of systemd."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support import debian

_BIN: Final = Path("/usr/local/bin")


class ToolMissing(Exception):
    """There is no such program; the text says what to do."""

    def __init__(self, tool: Tool) -> None:
        super().__init__(
            f"no {tool.name} to check files with. Set {tool.variable}, or install it "
            f"(Debian: apt-get install {tool.debian_package})"
        )


@dataclass(frozen=True, slots=True)
class Tool:
    """A program, the variable that names another one, and the package that has it."""

    name: str
    variable: str
    debian_package: str
    alone: bool = False
    """Take nothing else of the package, which is large or would run as a service."""

    def program(self) -> Path:
        """The program to run.

        Raises:
            ToolMissing: there is none.
        """
        found = os.environ.get(self.variable) or shutil.which(self.name)
        if found is None:
            raise ToolMissing(self)
        return Path(found)

    def install(self) -> None:
        """Install it from Debian.

        Raises:
            InstallFailed: it could not be fetched or installed.
        """
        if self.alone:
            debian.extract(self.debian_package, f"./usr/bin/{self.name}", _BIN)
        else:
            debian.install([self.debian_package])


PROMTOOL: Final = Tool("promtool", "SAGASMITH_TEST_PROMTOOL", "prometheus", alone=True)
SYSTEMD_ANALYZE: Final = Tool("systemd-analyze", "SAGASMITH_TEST_SYSTEMD_ANALYZE", "systemd")
TOOLS: Final = (PROMTOOL, SYSTEMD_ANALYZE)
