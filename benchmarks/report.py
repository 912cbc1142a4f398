"""What the programs here share: which services, progress on stderr, a table on stdout, JSON in a file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Final

_VARIABLES: Final = {"amqp": "SAGASMITH_TEST_AMQP_URL", "postgres": "SAGASMITH_TEST_POSTGRES_URL"}
_VERSIONS: Final = ("aio-pika", "SQLAlchemy", "pydantic", "asyncpg")


def parser_of(doc: str | None, *services: str) -> argparse.ArgumentParser:
    """A parser that knows these services (`amqp`, `postgres`) and `--json`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    for service in services:
        parser.add_argument(f"--{service}", default=os.environ.get(_VARIABLES[service], ""))
    parser.add_argument("--json", default="", help="a file for everything that was measured")
    return parser


def parsed(parser: argparse.ArgumentParser, *, alone: str = "") -> argparse.Namespace:
    """What was asked for; ends the program where a service is not named, unless this option needs none."""
    options = parser.parse_args()
    missing = [f"--{service}" for service in _VARIABLES if getattr(options, service, None) == ""]
    if missing and not getattr(options, alone, ""):
        parser.error(f"name the services with {' and '.join(missing)}")
    return options


def told(words: str) -> None:
    """Progress."""
    print(words, file=sys.stderr, flush=True)


def machine() -> str:
    """On what it was measured."""
    versions = (f"{name} {version(name)}" for name in _VERSIONS)
    return f"Python {platform.python_version()}, {os.cpu_count()} cores, {', '.join(versions)}"


def report(options: argparse.Namespace, text: str, figures: Mapping[str, object]) -> None:
    """Print the text, and write the figures where `--json` says."""
    print(f"{text}\n\n{machine()}")
    if options.json:
        Path(options.json).write_text(json.dumps({"machine": machine(), **figures}, indent=1) + "\n")
