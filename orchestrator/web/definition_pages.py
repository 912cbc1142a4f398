"""The pages about definitions: which there are, who has and needs them, and what each looks like."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from orchestrator.definition import Saga
from orchestrator.graph_svg import svg
from orchestrator.web.access import Reader
from orchestrator.web.definitions import definitions_now, steps_of
from orchestrator.web.holding import holds_now
from orchestrator.web.problems import Problem
from orchestrator.web.rendering import link, render
from orchestrator.web.schemas import fields_of, marked_schema
from orchestrator.web.shield import PICTURE_POLICY
from orchestrator.web.web import web_of

router = APIRouter()


@router.get("/definitions")
async def all_definitions(request: Request, who: Reader) -> HTMLResponse:
    """Which there are, how many sagas need each, and who has it."""
    web = web_of(request)
    found, holds = await definitions_now(web), await holds_now(request)
    return render(request, who, "definitions.html", found=found, holds=holds, has_app=web.registry is not None)


@router.get("/definitions/{name}")
async def definition(request: Request, who: Reader, name: str, version: int = 0) -> HTMLResponse:
    """One that is known here: its steps, and the schema of its state."""
    web, saga = web_of(request), _known(request, name, version)
    alike = [one for one in await definitions_now(web) if one.saga == name]
    this = next(one for one in alike if one.known and one.version == version)
    schema = marked_schema(saga.state_type)
    told: dict[str, Any] = {
        "one": this,
        "others": [one for one in alike if one != this],
        "steps": steps_of(saga),
        "fields": fields_of(schema),
        "schema": json.dumps(schema, ensure_ascii=False, indent=2) if schema else "",
        "graph": link(request, f"/graphs/{name}.svg", version=version),
    }
    return render(request, who, "definition.html", **told)


@router.get("/graphs/{name}.svg")
async def graph(request: Request, _: Reader, name: str, version: int = 0) -> Response:
    """A definition's steps, as a picture."""
    return picture(svg(_known(request, name, version)))


def picture(drawn: str) -> Response:
    """An SVG that is shown as an image."""
    return Response(drawn, media_type="image/svg+xml", headers={"content-security-policy": PICTURE_POLICY})


def _known(request: Request, name: str, version: int) -> type[Saga[Any]]:
    registry = web_of(request).registry
    saga = None if registry is None else registry.version(name, version)
    if saga is not None:
        return saga
    raise Problem(HTTPStatus.NOT_FOUND, "unknown-definition", "this process does not have that definition")
