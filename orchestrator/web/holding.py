"""Holding definitions, so that their sagas do not begin, and releasing them: over the API, and by the page's forms."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field, ValidationError

from orchestrator.client import SagaClient
from orchestrator.holds import Hold
from orchestrator.web.access import Operator, reading
from orchestrator.web.api import router as sagas_router
from orchestrator.web.problems import API, Problem
from orchestrator.web.rendering import seen_at, written_form
from orchestrator.web.web import web_of
from orchestrator.web.words import Reason, Word

router = APIRouter(prefix=API, responses=sagas_router.responses, dependencies=[Depends(reading)], tags=["definitions"])
pages = APIRouter()

Name: TypeAlias = Annotated[Word, Path(description="The definition's name")]


class NewHold(BaseModel):
    """Why a definition is to be held, or released, and which of its versions."""

    reason: Reason
    version: int | None = Field(default=None, ge=0, le=2**31 - 1, description="This one alone; null: all of them")


@router.get("/holds")
async def all_holds(request: Request) -> list[Hold]:
    """Tell which definitions are held: since when, by whom, and why."""
    return list(await holds_now(request))


@router.post("/definitions/{name}/hold", status_code=HTTPStatus.CREATED)
async def hold(request: Request, name: Name, asked: NewHold, who: Operator) -> Hold:
    """Keep sagas from beginning until they are released; each engine heeds it within a second. Starting is accepted.

    409 if just that is held already.
    """
    return await _client(request).hold(name, version=asked.version, reason=asked.reason, by=who.name)


@router.post("/definitions/{name}/release")
async def release(request: Request, name: Name, asked: NewHold, who: Operator) -> list[Hold]:
    """Let sagas begin again, those that wait first; the holds that are over. 409 if that is not held."""
    return list(await _client(request).release(name, version=asked.version, reason=asked.reason, by=who.name))


@pages.post("/definitions/hold")
async def hold_by_form(request: Request) -> Response:
    """Hold what a form names, and look at the definitions again."""
    who, form = await written_form(request)
    name, asked = _read(form)
    await _client(request).hold(name, version=asked.version, reason=asked.reason, by=who.name)
    return seen_at(request, "/definitions")


@pages.post("/definitions/release")
async def release_by_form(request: Request) -> Response:
    """Release what a form names, and look at the definitions again."""
    who, form = await written_form(request)
    name, asked = _read(form)
    await _client(request).release(name, version=asked.version, reason=asked.reason, by=who.name)
    return seen_at(request, "/definitions")


async def holds_now(request: Request) -> Sequence[Hold]:
    """What is held now, for the page and for the API."""
    return await _client(request).holds()


def _client(request: Request) -> SagaClient:
    database = web_of(request).database
    return SagaClient(database.engine, schema=database.schema)


def _read(form: dict[str, str]) -> tuple[str, NewHold]:
    """What a form says; `which` is a version, or `all`, and after a space the name."""
    version, _, name = form.get("which", "").partition(" ")
    fields: dict[str, Any] = {"reason": form.get("reason", ""), "version": None if version == "all" else version}
    try:
        return name, NewHold.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", told) from None
