"""What the pages' forms ask for. Each answers by sending the browser to where the outcome is seen."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ValidationError

from messaging.dead_letters import DeadLetter, Selection, found, replay
from orchestrator.web import asking, bulk
from orchestrator.web.access import COOKIE, SESSION_SECONDS, Reader, Who
from orchestrator.web.api import Asked
from orchestrator.web.bulk_api import NewBulk, begun_bulk
from orchestrator.web.problems import Problem
from orchestrator.web.rendering import base_of, form_of, render, seen_at, written_form
from orchestrator.web.web import Letters, web_of

logger = logging.getLogger(__name__)

_ANSWER_WITHIN_SECONDS: Final = 2.0
_LETTERS_SHOWN: Final = 100
_KEY_LENGTH: Final = 200
_WHERE: Final = {"saga": "saga", "status": "status", "business_key": "key", "step": "step"}
"""A form's fields that choose sagas; `key` is its idempotency key."""

B = TypeVar("B", bound=BaseModel)
router = APIRouter()


@router.post("/sagas/{saga_id}/actions")
async def act(request: Request, saga_id: UUID) -> Response:
    """Ask something of a saga, and look at it again."""
    who, form = await written_form(request)
    asked = _read(Asked, {name: form.get(name, "") for name in ("action", "reason", "step")})
    database = web_of(request).database
    wish = asking.Wish(asked.action.value, asked.reason, who.name, asked.step)
    signal_id = await asking.ask_once(database, saga_id, wish, _key(form))
    await asking.answered(database, signal_id, within=_ANSWER_WITHIN_SECONDS)
    return seen_at(request, f"/sagas/{saga_id}", asked=signal_id)


@router.post("/bulk")
async def begin_bulk(request: Request) -> Response:
    """Ask something of many, and look how far it is."""
    who, form = await written_form(request)
    fields: dict[str, Any] = {name: form.get(name, "") for name in ("action", "reason")}
    if group := form.get("failure_group"):
        fields["failure_group"] = group
    else:
        where: dict[str, object] = {to: form[name] for name, to in _WHERE.items() if form.get(name)}
        fields["where"] = where | ({"state": _json(form["state"])} if form.get("state") else {})
    begun = await begun_bulk(web_of(request), _read(NewBulk, fields), who, _key(form))
    return seen_at(request, f"/bulk/{begun.id}")


def _json(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None  # which is refused as it stands


@router.post("/bulk/{bulk_id}/stop")
async def stop_bulk(request: Request, bulk_id: UUID) -> Response:
    """Ask no further saga."""
    await written_form(request)
    database = web_of(request).database
    await database.write(lambda c: bulk.stop(c, bulk_id, database.schema))
    return seen_at(request, f"/bulk/{bulk_id}")


@router.get("/letters")
async def letters_page(request: Request, who: Reader, replayed: int | None = None, stay: int = 0) -> Response:
    """Messages that nobody could use."""
    letters: list[DeadLetter] = []
    async with _opened(request)() as (keeper, known):
        queues = [queue for queue in known if await keeper.dead_letter_count(queue) is not None]
        for queue in queues:
            room = _LETTERS_SHOWN + 1 - len(letters)
            letters += await found(keeper, queue, limit=room) if room > 0 else []
    context: dict[str, Any] = {
        "letters": letters[:_LETTERS_SHOWN],
        "more": len(letters) > _LETTERS_SHOWN,
        "replayed": replayed,
        "stay": stay,
    }
    return render(request, who, "letters.html", queues=queues, **context)


@router.post("/letters/replay")
async def replay_letters(request: Request) -> Response:
    """Return dead letters to the queue they died in: one, or all of a queue."""
    who, form = await written_form(request)
    queue, letter = form.get("queue", ""), form.get("id", "")
    async with _opened(request)() as (keeper, queues):
        if queue not in queues:
            raise Problem(HTTPStatus.NOT_FOUND, "unknown-queue", "that queue keeps no dead letters that are known here")
        outcomes = await replay(keeper, queue, Selection(ids=(letter,) if letter else ()))
    stay = sum(outcome.error is not None for outcome in outcomes)
    told = len(outcomes) - stay
    logger.info("%s replayed %d dead letters of queue %r, %d stay", _plain(who), told, queue, stay)
    return seen_at(request, "/letters", replayed=told, stay=stay or None)


def _opened(request: Request) -> Letters:
    letters = web_of(request).letters
    if letters is None:
        text = "no broker is configured here, so there are no dead letters to look at. Set MESSAGING_BROKER_URL"
        raise Problem(HTTPStatus.NOT_FOUND, "no-broker", text)
    return letters


@router.post("/login")
async def sign_in(request: Request) -> Response:
    """Sign in with a token."""
    form, access = await form_of(request), web_of(request).access
    cookie = access.signed_in(form.get("token", ""), form.get("name", ""))
    if not access.by_token or cookie is None:
        return render(request, None, "login.html", status=HTTPStatus.UNAUTHORIZED, wrong=True)
    answer = seen_at(request, "/")
    answer.set_cookie(
        COOKIE,
        cookie,
        max_age=SESSION_SECONDS,
        path=base_of(request) or "/",
        secure=_is_https(request),
        httponly=True,
        samesite="lax",
    )
    return answer


@router.post("/logout")
async def sign_out(request: Request, who: Reader) -> Response:
    """Forget who signed in."""
    web_of(request).access.means_it(who, (await form_of(request)).get("csrf", ""))
    answer = seen_at(request, "/login")
    answer.delete_cookie(COOKIE, path=base_of(request) or "/")
    return answer


def _is_https(request: Request) -> bool:
    """Whether the browser came by TLS, here or at a proxy before us; claiming so only hurts who claims it."""
    origin = request.headers.get("origin", "")
    return "https" in (request.scope["scheme"], request.headers.get("x-forwarded-proto"), urlsplit(origin).scheme)


def _read(kind: type[B], fields: dict[str, Any]) -> B:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False)
        told = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems)
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", told) from None


def _key(form: dict[str, str]) -> str:
    return form.get("key", "")[:_KEY_LENGTH].replace("\0", "")


def _plain(who: Who) -> str:
    return ascii(who.name)
