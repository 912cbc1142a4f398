"""`module:attribute` to an orchestrator or a service, with an error that says what was found instead."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from orchestrator.cli import exits
from orchestrator.cli.exits import CommandError

if TYPE_CHECKING:
    from orchestrator.app import Orchestrator, Target


def loaded(target: str, *, app_dir: str = ".") -> Target:
    """The orchestrator or service that a target names.

    Raises:
        CommandError: there is none; the text names module, attribute and what was found.
    """
    from messaging.service import Service
    from orchestrator.app import Orchestrator

    module_name, colon, attribute = target.partition(":")
    if not (module_name and colon and attribute):
        raise _wrong(f"target {target!r} is not MODULE:ATTRIBUTE, such as shop.main:app")
    module = _module(module_name, target, app_dir)
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _wrong(f"module {module_name!r} has no attribute {attribute!r}. {_offered(module, attribute)}")
        found = getattr(found, part)
    if not isinstance(found, (Orchestrator, Service)):
        raise _wrong(f"{target} is {_described(found)}, not an Orchestrator or a Service. {_offered(module)}")
    return found


def loaded_app(target: str, *, app_dir: str = ".") -> Orchestrator:
    """The orchestrator that a target names; see `loaded`."""
    from orchestrator.app import Orchestrator

    if not target:
        raise _wrong(
            "where are the sagas defined? Say --app MODULE:ATTRIBUTE, or set ORCHESTRATOR_APP, "
            'or write app = "shop.main:app" below [orchestrator] in saga.toml'
        )
    found = loaded(target, app_dir=app_dir)
    if not isinstance(found, Orchestrator):
        raise _wrong(f"{target} is a Service, and an Orchestrator is needed here")
    return found


def _module(name: str, target: str, app_dir: str) -> ModuleType:
    folder = str(Path(app_dir).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            where = f"Looked in {folder} and among the installed packages; --app-dir names another folder"
            raise _wrong(f"there is no module {error.name!r} (target {target}). {where}") from error
        raise _wrong(f"module {name!r} needs a module that is not there: {error.name!r}") from error
    except Exception as error:
        line = _last_line(error)
        raise _wrong(f"importing {name!r} raised {type(error).__name__}: {error}{line}") from error


def _last_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"\n  at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""


def _offered(module: ModuleType, wanted: str = "") -> str:
    from messaging.service import Service
    from orchestrator.app import Orchestrator

    names = [name for name, value in vars(module).items() if isinstance(value, (Orchestrator, Service))]
    close = difflib.get_close_matches(wanted, names, n=1)
    if close:
        return f"Did you mean {module.__name__}:{close[0]}?"
    if names:
        return "It has: " + ", ".join(f"{name} ({type(getattr(module, name)).__name__})" for name in sorted(names))
    return "It has no Orchestrator and no Service at all"


def _described(found: object) -> str:
    if isinstance(found, type):
        return f"the class {found.__name__}"
    return f"of type {type(found).__name__}"


def _wrong(text: str) -> CommandError:
    return CommandError(text, exits.USAGE)
