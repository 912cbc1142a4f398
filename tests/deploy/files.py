"""What we ship for running it: parsed, checked against the code, and run where that can be done here."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
DEPLOY = DOCS / "deploy"
