"""Every route of the application, found by looking, so that a test of all of them cannot forget one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute

from tests.unit.web.conftest import Site


def routes(site: Site, method: str) -> list[APIRoute]:
    """All that take this method; of the methods that change something there is but POST."""
    app: Any = site.http._transport.app  # type: ignore[attr-defined]
    found = list(_routes(app.routes))
    assert {one for route in found for one in route.methods} == {"GET", "POST"}
    taken = [route for route in found if method in route.methods]
    assert len(taken) > 12, "the framework keeps its routes elsewhere now"
    return taken


def paths(site: Site, method: str) -> list[str]:
    """Every path that takes this method, with ids and names filled in."""
    return [filled(route.path) for route in routes(site, method)]


def filled(path: str, name: str = "create-order") -> str:
    """A path with ids, and this name, in the place of parameters."""
    for parameter in ("saga_id", "bulk_id", "action_id"):
        path = path.replace(f"{{{parameter}}}", str(uuid4()))
    return path.replace("{name}", name)


def parameters(route: APIRoute) -> list[str]:
    """What a route takes beside its body: in its path, its query and its headers."""
    return [parameter.alias for parameter in get_flat_params(route.dependant)]


def _routes(found: Any) -> Iterator[APIRoute]:
    for route in found:
        if isinstance(route, APIRoute):
            yield route
        elif hasattr(route, "original_router"):
            yield from _routes(route.original_router.routes)
