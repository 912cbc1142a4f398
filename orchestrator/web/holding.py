"""Holding definitions, so that their sagas do not begin, and releasing them: over the API, and by the page's forms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from orchestrator.asking_holds import hold_now, not_held, wake_all
from orchestrator.errors import HoldRefused
from orchestrator.holds import Hold
from orchestrator.sql import holds
from orchestrator.sql.holds import Asked
from orchestrator.web.access import Operator, Who, reading
from orchestrator.web.api import router as sagas_router
from orchestrator.web.asking import Once, keep_result, result_of
from orchestrator.web.database import Database
from orchestrator.web.problems import API, Problem
from orchestrator.web.rendering import seen_at, written_form
from orchestrator.web.web import web_of
from orchestrator.web.words import IdempotencyKey, Reason, Word

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
async def hold(
    request: Request, name: Name, asked: NewHold, who: Operator, idempotency_key: IdempotencyKey = ""
) -> Hold:
    """Keep sagas from beginning until they are released; each engine heeds it within a second. Starting is accepted.

    409 if just that is held already.
    """
    return await _held(request, name, asked, who, idempotency_key)


@router.post("/definitions/{name}/release")
async def release(
    request: Request, name: Name, asked: NewHold, who: Operator, idempotency_key: IdempotencyKey = ""
) -> list[Hold]:
    """Let sagas begin again, those that wait first; the holds that are over. 409 if that is not held."""
    return await _released(request, name, asked, who, idempotency_key)


@pages.post("/definitions/hold")
async def hold_by_form(request: Request) -> Response:
    """Hold what a form names, and look at the definitions again."""
    who, form = await written_form(request)
    await _held(request, *_read(form), who, key="")
    return seen_at(request, "/definitions")


@pages.post("/definitions/release")
async def release_by_form(request: Request) -> Response:
    """Release what a form names, and look at the definitions again."""
    who, form = await written_form(request)
    await _released(request, *_read(form), who, key="")
    return seen_at(request, "/definitions")


async def holds_now(request: Request) -> Sequence[Hold]:
    """What is held now, for the page and for the API."""
    database = web_of(request).database
    return await database.read(lambda c: holds.held(c, database.schema))


async def _held(request: Request, name: str, asked: NewHold, who: Who, key: str) -> Hold:
    database, order = web_of(request).database, Asked(name, asked.version, asked.reason, who.name)
    schema = database.schema
    (held,) = await _once(
        database,
        _request(key, "hold", order),
        act=lambda c: [hold_now(c, order, schema)],
        recall=lambda c, hold_id: [holds.hold_with(c, hold_id, schema)],
    )
    return held


async def _released(request: Request, name: str, asked: NewHold, who: Who, key: str) -> list[Hold]:
    database, order = web_of(request).database, Asked(name, asked.version, asked.reason, who.name)
    schema = database.schema
    try:
        released = await _once(
            database,
            _request(key, "release", order),
            act=lambda c: _release(c, order, schema),
            recall=lambda c, hold_id: holds.released_with(c, hold_id, order, schema),
        )
    except HoldRefused:
        await wake_all(database.write, order, schema)
        raise
    await wake_all(database.write, order, schema)  # also when repeated: the process may have ended before it was done
    return released


def _request(key: str, what: str, order: Asked) -> Once:
    return Once.of(key, what, order.saga, "" if order.version is None else str(order.version), order.reason, order.by)


def _release(connection: Connection, order: Asked, schema: str | None) -> list[Hold]:
    ended = holds.release(connection, order, datetime.now(UTC), schema)
    if not ended:
        raise not_held(connection, order, schema)
    return ended


async def _once(
    database: Database,
    once: Once,
    *,
    act: Callable[[Connection], list[Hold]],
    recall: Callable[[Connection, UUID], list[Hold]],
) -> list[Hold]:
    """Do it, unless this request has; the holds that it was about, as they were, either way. A refusal is not kept."""

    def work(connection: Connection) -> list[Hold]:
        known = result_of(connection, once, database.schema)
        if known is not None:
            return recall(connection, known)
        done = act(connection)
        keep_result(connection, once, done[0].id, database.schema)
        return done

    try:
        return await database.write(work)
    except (IntegrityError, HoldRefused):
        # Two at once under one key: the other was first, so its result is there now. It may have been written
        # between our look at the key and our look at the holds, and then what we meet is a refusal.
        return await database.write(work)


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
