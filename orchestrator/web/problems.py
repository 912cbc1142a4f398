"""Errors as people and programs get them: RFC 9457 below `/api`, a page elsewhere.

What was sent is never repeated in an error.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException

from messaging.errors import TransportError, UnknownQueue
from orchestrator.errors import ActionRefused, HoldRefused, SchemaMismatch, UnknownDefinition, UnknownSaga, UnknownToken
from orchestrator.web.shield import HEADERS

logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
API: Final = "/api"
_PREFIX: Final = "urn:sagasmith:problem:"


class ProblemBody(BaseModel):
    """An error (RFC 9457)."""

    type: str = Field(description="Which kind of error, for programs", examples=[f"{_PREFIX}unknown-saga"])
    title: str
    status: int
    detail: str = Field(description="What went wrong, and what to do")


class Problem(Exception):
    """A request that cannot be fulfilled.

    Args:
        status: of HTTP.
        kind: a word for programs.
        detail: what went wrong, with ids, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: HTTPStatus, kind: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.kind, self.detail, self.headers = status, kind, detail, dict(headers or {})
        super().__init__(detail)

    @property
    def body(self) -> ProblemBody:
        """As it is told."""
        return ProblemBody(
            type=f"{_PREFIX}{self.kind}", title=self.status.phrase, status=int(self.status), detail=self.detail
        )


Shows = Callable[[Request, Problem], Awaitable[Response]]
"""Makes a page of a problem."""


def problem_of(error: Exception) -> Problem:
    """What an error means to who asked."""
    match error:
        case Problem():
            return error
        case UnknownSaga() | UnknownDefinition():
            kind = "unknown-saga" if isinstance(error, UnknownSaga) else "unknown-definition"
            return Problem(HTTPStatus.NOT_FOUND, kind, _without_command(str(error)))
        case UnknownToken():
            return Problem(HTTPStatus.NOT_FOUND, "unknown-token", str(error))
        case ActionRefused() | HoldRefused():
            return Problem(HTTPStatus.CONFLICT, "refused", str(error))
        case RequestValidationError():
            return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid", _told(error))
        case HTTPException():
            status = HTTPStatus(error.status_code)
            return Problem(status, status.phrase.lower().replace(" ", "-"), str(error.detail), error.headers)
        case UnknownQueue():
            return Problem(HTTPStatus.NOT_FOUND, "unknown-queue", str(error))
        case TransportError():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "broker-away", f"the broker cannot be reached: {error}")
        case SchemaMismatch():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "schema", str(error))
        case OperationalError() | InterfaceError() | PoolTimeout() | DisconnectionError() | OSError():
            logger.warning("The database did not answer: %s", getattr(error, "orig", error))
            text = "the database did not answer. Is it running? See: saga doctor"
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, "database-away", text, {"retry-after": "2"})
        case _:
            logger.error("A request failed", exc_info=error)
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "unexpected", "something unexpected happened; see the log")


def answer_problems(app: FastAPI, page: Shows) -> None:
    """Have an application answer every error so."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if path_of(request).startswith((API, "/livez", "/readyz", "/metrics")):
            told = problem.body.model_dump()
            answer: Response = JSONResponse(told, int(problem.status), problem.headers, media_type=MEDIA_TYPE)
        else:
            answer = await page(request, problem)
        for name, value in HEADERS.items():  # what is unexpected is answered outside of the shield
            answer.headers.setdefault(name, value)
        return answer

    kinds: tuple[type[Exception], ...] = (
        *(
            Problem,
            UnknownSaga,
            UnknownDefinition,
            UnknownToken,
            ActionRefused,
            HoldRefused,
            RequestValidationError,
            HTTPException,
        ),
        *(TransportError, UnknownQueue, SchemaMismatch, OperationalError, InterfaceError, PoolTimeout),
        *(DisconnectionError, OSError, Exception),
    )
    for kind in kinds:
        app.add_exception_handler(kind, handle)


def path_of(request: Request) -> str:
    """The path below where the application is mounted."""
    root: str = request.scope.get("root_path", "")
    path: str = request.scope["path"]
    return path.removeprefix(root)


def _told(error: RequestValidationError) -> str:
    problems: list[Any] = list(error.errors())
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems[:10])


def _without_command(text: str) -> str:
    """An error's text without the command line that it recommends."""
    return text.partition(". List them with")[0]
