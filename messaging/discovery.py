"""Finding a service's handlers in the modules of a package."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any

from messaging.errors import DiscoveryError
from messaging.handler_classes import CommandHandler, EventHandler
from messaging.handlers import Handler

if TYPE_CHECKING:
    from messaging.service import Service


def discover(service: Service, package: str | ModuleType) -> tuple[Handler, ...]:
    """Import all modules of a package and register its handler classes; see `Service.discover`."""
    root = package if isinstance(package, ModuleType) else _imported(service, package)
    modules = [root, *_below(service, root)]
    for module in modules:
        for handler_class in _handler_classes(module):
            if not _is_registered(service, handler_class):
                service.register(_instance(service, handler_class))
    names = {module.__name__ for module in modules}
    found = tuple(handler for handler in service.handlers if handler.function.__module__ in names)
    if not found:
        raise DiscoveryError(
            service.name,
            root.__name__,
            f"has no handler in {', '.join(sorted(names))}. Write a class CommandHandler[...] or EventHandler[...], "
            f"or decorate a function with this service's handles or subscribes",
        )
    return found


def _below(service: Service, root: ModuleType) -> Iterator[ModuleType]:
    paths: Any = getattr(root, "__path__", ())
    for info in pkgutil.walk_packages(paths, f"{root.__name__}."):
        if not info.name.endswith(".__main__"):  # importing it would run it
            yield _imported(service, info.name)


def _imported(service: Service, name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DiscoveryError:
        raise
    except Exception as error:
        raise DiscoveryError(service.name, name, f"cannot be imported: {type(error).__name__}: {error}") from error


def _handler_classes(module: ModuleType) -> list[type[Any]]:
    """Those that are written in this module and can be made instances of."""
    written: list[Any] = [
        found for found in vars(module).values() if isinstance(found, type) and found.__module__ == module.__name__
    ]
    concrete = [found for found in written if not inspect.isabstract(found)]
    return [found for found in concrete if issubclass(found, (CommandHandler, EventHandler))]


def _is_registered(service: Service, handler_class: type) -> bool:
    return any(type(getattr(handler.function, "__self__", None)) is handler_class for handler in service.handlers)


def _instance(service: Service, handler_class: type[Any]) -> Any:
    try:
        inspect.signature(handler_class).bind()
    except TypeError as error:
        raise DiscoveryError(
            service.name,
            handler_class.__module__,
            f"has {handler_class.__qualname__}, whose constructor needs arguments ({error}). "
            f"Register it before: service.register({handler_class.__name__}(...))",
        ) from error
    return handler_class()
