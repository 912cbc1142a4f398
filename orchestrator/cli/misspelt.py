"""Settings that nobody reads: misspelt names are otherwise ignored in silence."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

_OTHERS: Final = ("ORCHESTRATOR_FAILPOINT",)
_ALIKE: Final = 0.86


def known_variables() -> dict[str, tuple[str, ...]]:
    """The names of all settings, by the prefix of their variables."""
    from messaging.settings import MessagingSettings
    from orchestrator.settings import OrchestratorSettings
    from orchestrator.web.settings import DashboardSettings

    return {
        "MESSAGING_": tuple(f"MESSAGING_{name.upper()}" for name in MessagingSettings.model_fields),
        "ORCHESTRATOR_": tuple(f"ORCHESTRATOR_{name.upper()}" for name in OrchestratorSettings.model_fields),
        "DASHBOARD_": tuple(f"DASHBOARD_{name.upper()}" for name in DashboardSettings.model_fields),
    }


def misspelt_variables(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names of variables that look like settings and are none, each with the likely one, or empty."""
    known = [*(name for names in known_variables().values() for name in names), *_OTHERS]
    for name in sorted(set(names)):
        upper = name.upper()
        if upper in known:
            continue
        close = difflib.get_close_matches(upper, known, n=1, cutoff=_ALIKE)
        if close:
            yield name, close[0]
        elif upper.startswith(tuple(known_variables())):
            yield name, next(iter(difflib.get_close_matches(upper, known, n=1)), "")


def variables_of(environment: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Every variable with where it stands: the environment, or `.env`."""
    found = dict.fromkeys(environment, "environment")
    try:
        lines = (folder / ".env").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return found
    for line in lines:
        name, equals, _ = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            found.setdefault(name.strip(), ".env")
    return found


def misspelt_keys(folder: Path) -> Iterator[tuple[str, str]]:
    """Keys of `saga.toml` that are no settings, each with the likely one, or empty."""
    try:
        document: dict[str, Any] = tomllib.loads((folder / "saga.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return
    for prefix, variables in known_variables().items():
        header = prefix.rstrip("_").lower()
        known = [name.removeprefix(prefix).lower() for name in variables]
        table: Any = document.get(header)
        keys = list(cast("dict[str, Any]", table)) if isinstance(table, dict) else []
        for key in keys:
            if key not in known:
                close = difflib.get_close_matches(key, known, n=1)
                yield f"[{header}] {key}", close[0] if close else ""
