"""Completing a step over HTTP, as a webhook does: the reply token is the credential, so nobody signs in."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import AfterValidator, BaseModel, Field, JsonValue, SecretStr
from pydantic_core import to_json
from sqlalchemy import Connection

from messaging import envelope as wire
from messaging.codec import check_json
from messaging.errors import DecodeError
from messaging.inbox import Answer
from orchestrator.completing import completion
from orchestrator.web import asking
from orchestrator.web.api import WRONG
from orchestrator.web.problems import API, Problem
from orchestrator.web.web import Web, web_of
from orchestrator.web.words import Key, storable

BY: Final = "reply token, over HTTP"
"""Who answered, as the audit has it: whoever had the token."""

router = APIRouter(prefix=API, responses=WRONG, tags=["webhooks"])


class Completion(BaseModel):
    """The answer to a command whose participant said `accepted`."""

    token: SecretStr = Field(min_length=1, max_length=200, description="What the participant handed out")
    fields: dict[str, JsonValue] = Field(default_factory=dict, description="Those of the reply, or of the failure")
    failure: Key = Field(default="", description="Refuse, with this error code")
    reason: Annotated[str, AfterValidator(storable)] = Field(default="", max_length=2000, description="For the history")


class Completed(BaseModel):
    """What became of it."""

    state: Annotated[str, Field(pattern="^(done|asked)$", description="`asked`: no engine has taken it yet")]


@router.post("/complete", responses={202: {"model": Completed, "description": "No engine took it yet; it stays"}})
async def complete(
    request: Request,
    response: Response,
    given: Completion,
    wait: Annotated[float, Query(ge=0, le=10, description="Seconds to wait for an engine to take it")] = 2.0,
) -> Completed:
    """Answer a command by its reply token. 200: the saga has the answer; 409: refused, with why; 202: not taken yet.

    The same answer sent again within a day is one. Nobody has to say who they are: the token is the right to answer.
    """
    web = web_of(request)
    _refuse_unless_open(web)
    signal_id = await _asked_once(web, given)
    row = await asking.answered(web.database, signal_id, within=wait)
    if row is None:
        response.status_code = HTTPStatus.ACCEPTED
        return Completed(state="asked")
    asking.refuse_if_refused(row)
    return Completed(state="done")


def _refuse_unless_open(web: Web) -> None:
    if web.settings.read_only:
        raise Problem(HTTPStatus.FORBIDDEN, "read-only", "nobody acts here, and so no command is answered here either")
    if not web.completions.take():
        text = "more answers came here within a second than DASHBOARD_COMPLETE_PER_SECOND allows. Send it again"
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too-many", text, {"retry-after": "1"})


async def _asked_once(web: Web, given: Completion) -> UUID:
    """Leave the answer as a signal, unless the same was left; what was refused may be sent again."""
    token, body, schema = given.token.get_secret_value(), _body(given), web.database.schema
    answer = Answer(wire.FAILURE if given.failure else wire.SUCCESS, given.failure, body=body)

    def read(connection: Connection) -> asking.Order:
        return completion(connection, token, answer, given.reason, BY, schema)

    order = await web.database.read(read)  # first, so that what is made up locks nothing
    digest = hashlib.sha256(b"\0".join((token.encode(), given.failure.encode(), body))).hexdigest()
    return await asking.order_once(web.database, order, asking.Once.of(f"complete {digest}", digest), anew=True)


def _body(given: Completion) -> bytes:
    try:
        body = to_json(given.fields)
        check_json(body)
    except (ValueError, DecodeError):
        text = "fields: they cannot be stored: too deep, or numbers or characters that JSON does not have"
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", text) from None
    return body
