"""The HTTP API, `/api`: sagas read and steered. JSON; errors as RFC 9457 has them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, TypeAlias
from uuid import UUID

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import AfterValidator, BaseModel, Field
from sqlalchemy import Connection

from orchestrator.errors import UnknownSaga
from orchestrator.evidence import read_evidence
from orchestrator.failures import FailureGroup, failures
from orchestrator.instance import SagaStatus
from orchestrator.payloads import Payloads, payloads_of
from orchestrator.recorded import read_recorded
from orchestrator.simulating import Simulated
from orchestrator.sql.search import Found
from orchestrator.state_story import StateStep, state_story
from orchestrator.status import (
    AuditRow,
    HistoryRow,
    SagaFilter,
    SagaRow,
    TimelineRow,
    answer_to,
    audit_of,
    get_saga,
    history_of,
    list_sagas,
    missing,
    scanned,
    timeline_of,
)
from orchestrator.web import asking
from orchestrator.web.access import Operator, Reader, Role, access_of, reading
from orchestrator.web.definitions import Definition, definitions_now
from orchestrator.web.finding import allowed, read_where, refuse_scans
from orchestrator.web.live import MEDIA_TYPE, look_at_list, look_at_saga, streamed
from orchestrator.web.overview import overview_of
from orchestrator.web.previewing import preview
from orchestrator.web.problems import API, ProblemBody
from orchestrator.web.problems import MEDIA_TYPE as PROBLEM
from orchestrator.web.surveys import Survey, audits
from orchestrator.web.web import web_of
from orchestrator.web.words import Action, IdempotencyKey, Key, Reason, Word, storable
from orchestrator.why import Explanation, explain

MOST: Final = 200
WRONG: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "Refused, with why", "content": {PROBLEM: {"schema": ProblemBody.model_json_schema()}}},
    "503": {"description": "Not now", "content": {PROBLEM: {"schema": ProblemBody.model_json_schema()}}},
}
"""How errors look, for the OpenAPI document."""

router = APIRouter(prefix=API, responses=WRONG, dependencies=[Depends(reading)], tags=["sagas"])

SagaId: TypeAlias = Annotated[UUID, Path(description="The saga's id")]
Limit: TypeAlias = Annotated[int, Query(ge=1, le=MOST, description="At most so many")]
Seen: TypeAlias = Annotated[Key, Query(description="The `id` of an event that need not be told again")]
LastEvent: TypeAlias = Annotated[Key, Header(description="The same, as an EventSource says it when it comes back")]
Where: TypeAlias = Annotated[
    Sequence[Word], Query(max_length=10, description="Only with this value in the state: `customer=c-17`")
]
Place: TypeAlias = Annotated[
    str, Query(pattern=r"^(\d{1,9}\.\d{1,9})?$", description="`next` of the page before, such as `12.0`")
]
After: TypeAlias = Annotated[UUID | None, Query(description="`next` of the page before")]


class Session(BaseModel):
    """Who asks, and what they may do."""

    user: str
    role: Role
    csrf_token: str = Field(description="To be sent as X-CSRF-Token with each write that has no bearer token")


class SagaPage(BaseModel):
    """Sagas, the newest first."""

    items: list[SagaRow]
    next: UUID | None = Field(description="`after` of the next page; null after the last")
    scanned: dict[str, str] = Field(description="Fields that are not searchable, so that states were read, with why")


class AuditPage(BaseModel):
    """What operators asked, the newest first."""

    items: list[AuditRow]
    next: UUID | None = Field(description="`after` of the next page; null after the last")


class StatePage(BaseModel):
    """States that a saga has had, in order, with what was changed to come to each."""

    items: list[StateStep]
    next: str | None = Field(description="`after` of the next page; null after the last")
    note: str = Field(description="What is missing, and how to have it; empty if nothing is")


class Proposed(BaseModel):
    """What might be asked of a saga."""

    action: Action
    step: Annotated[str, AfterValidator(storable)] = Field(
        default="", max_length=200, description="Of retry, skip and resolve: which step, if you want to be sure"
    )


class Asked(Proposed):
    """What an operator asks of a saga."""

    reason: Reason


class Answer(BaseModel):
    """What became of it."""

    id: UUID = Field(description="Of the request; `GET /api/actions/ID` tells what became of it")
    saga_id: UUID
    state: Annotated[str, Field(pattern="^(done|refused|asked)$", description="`asked`: no engine has answered yet")]
    before: str = ""
    after: str = ""
    refused: str = Field(default="", description="Why")


@router.get("/session", tags=["access"])
async def session(request: Request, who: Reader) -> Session:
    """Tell who asks, what they may do, and the token for writes that a browser makes."""
    return Session(user=who.name, role=who.role, csrf_token=access_of(request).csrf_token(who))


def filters(
    saga: Annotated[Word | None, Query(description="Only of this name")] = None,
    status: Annotated[SagaStatus | None, Query(description="Only in this status")] = None,
    key: Annotated[Word | None, Query(description="Only with this business key")] = None,
    step: Annotated[Word | None, Query(description="Only those that wait for this step, or block at it")] = None,
    where: Where = (),
) -> SagaFilter:
    """Which sagas are meant; all of it must be so."""
    return SagaFilter(saga=saga, status=status, key=key, step=step, where=read_where(where))


Filters: TypeAlias = Annotated[SagaFilter, Depends(filters)]


@router.get("/sagas")
async def sagas(request: Request, which: Filters, after: After = None, limit: Limit = 50) -> SagaPage:
    """List sagas, the newest first."""
    database, registry = web_of(request).database, web_of(request).registry

    def read(connection: Connection) -> tuple[list[SagaRow], list[Found]]:
        meant, found = allowed(connection, which, registry, database.schema)
        return list_sagas(connection, meant, after=after, limit=limit + 1, schema=database.schema), found

    rows, found = await database.read(read)
    last = rows[limit - 1].saga_id if len(rows) > limit else None
    return SagaPage(items=rows[:limit], next=last, scanned={one.path: one.notice() for one in found})


@router.get("/events", response_class=StreamingResponse, responses={200: {"content": {MEDIA_TYPE: {}}}})
async def events(
    request: Request, which: Filters, limit: Limit = 50, seen: Seen = "", last_event_id: LastEvent = ""
) -> StreamingResponse:
    """Follow the first page of a list: an event `sagas` with its rows, now and after each change."""
    web = web_of(request)
    refuse_scans(await web.database.read(lambda c: scanned(c, which, schema=web.database.schema)))
    return await streamed(web.streams, look_at_list(web.database, which, limit), last_event_id or seen)


@router.get("/sagas/{saga_id}")
async def saga(request: Request, saga_id: SagaId) -> SagaRow:
    """Read one saga."""
    database = web_of(request).database
    row = await database.read(lambda c: get_saga(c, saga_id, schema=database.schema))
    if row is None:
        raise await database.read(lambda c: missing(c, saga_id, schema=database.schema))
    return row


@router.get("/sagas/{saga_id}/events", response_class=StreamingResponse, responses={200: {"content": {MEDIA_TYPE: {}}}})
async def saga_events(
    request: Request, saga_id: SagaId, seen: Seen = "", last_event_id: LastEvent = ""
) -> StreamingResponse:
    """Follow one saga: an event `saga` with its row, now and after each change; `end` when it has ended."""
    web = web_of(request)
    return await streamed(web.streams, look_at_saga(web.database, saga_id), last_event_id or seen)


@router.get("/sagas/{saga_id}/timeline")
async def timeline(request: Request, saga_id: SagaId) -> list[TimelineRow]:
    """Tell what a saga did, a row for each direction of each step, in order."""
    await saga(request, saga_id)
    database = web_of(request).database
    return await database.read(lambda c: timeline_of(c, saga_id, schema=database.schema))


@router.get("/sagas/{saga_id}/history")
async def history(request: Request, saga_id: SagaId) -> list[HistoryRow]:
    """Tell what happened beside the plain path: late replies, retries, notes."""
    await saga(request, saga_id)
    database = web_of(request).database
    return await database.read(lambda c: history_of(c, saga_id, schema=database.schema))


@router.get("/sagas/{saga_id}/audit")
async def audit(request: Request, saga_id: SagaId) -> list[AuditRow]:
    """Tell what operators asked of a saga, and what became of it."""
    await saga(request, saga_id)
    database = web_of(request).database
    return await database.read(lambda c: audit_of(c, saga_id, schema=database.schema))


@router.get("/sagas/{saga_id}/why")
async def why(request: Request, saga_id: SagaId) -> Explanation:
    """Tell why a saga stands where it stands, and what is safe to do, with what follows from it."""
    database = web_of(request).database
    evidence = await database.read(lambda c: read_evidence(c, saga_id, schema=database.schema))
    if evidence is None:
        raise UnknownSaga(saga_id)
    return explain(evidence, now=datetime.now(UTC))


@router.get("/sagas/{saga_id}/payloads")
async def payloads(request: Request, saga_id: SagaId) -> Payloads:
    """Show state and messages without their secrets; nothing of them where the definition is not known."""
    web = web_of(request)
    recorded = await web.database.read(lambda c: read_recorded(c, saga_id, schema=web.database.schema))
    if recorded is None:
        raise UnknownSaga(saga_id)
    return payloads_of(recorded, web.registry)


@router.get("/sagas/{saga_id}/states")
async def states(request: Request, saga_id: SagaId, after: Place = "", limit: Limit = 50) -> StatePage:
    """Tell what each step changed in the state, where the definition keeps states; without their secrets."""
    web, skipped = web_of(request), 1 if after else 0
    recorded = await web.database.read(
        lambda c: read_recorded(c, saga_id, states=skipped + limit + 1, since=_place(after), schema=web.database.schema)
    )
    if recorded is None:
        raise await web.database.read(lambda c: missing(c, saga_id, schema=web.database.schema))
    _, story = state_story(recorded, web.registry)
    items = story.steps[skipped:]
    last = items[limit - 1] if len(items) > limit else None
    return StatePage(
        items=list(items[:limit]),
        next=f"{last.revision}.{last.position}" if last else None,
        note="" if after else story.note,
    )


def _place(text: str) -> tuple[int, int]:
    revision, _, position = text.partition(".")
    return int(revision or 0), int(position or 0)


@router.post("/sagas/{saga_id}/actions", responses={202: {"model": Answer, "description": "No engine answered yet"}})
async def act(
    request: Request,
    response: Response,
    saga_id: SagaId,
    asked: Asked,
    who: Operator,
    idempotency_key: IdempotencyKey = "",
    wait: Annotated[float, Query(ge=0, le=10, description="Seconds to wait for an engine's answer")] = 2.0,
) -> Answer:
    """Ask something of a saga. 200: an engine has done it; 409: refused, with why; 202: no engine answered yet."""
    database = web_of(request).database
    wish = asking.Wish(asked.action.value, asked.reason, who.name, asked.step)
    signal_id = await asking.ask_once(database, saga_id, wish, idempotency_key)
    row = await asking.answered(database, signal_id, within=wait)
    if row is None:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["location"] = f"{request.scope.get('root_path', '')}{API}/actions/{signal_id}"
        return Answer(id=signal_id, saga_id=saga_id, state="asked")
    asking.refuse_if_refused(row)
    return Answer(id=signal_id, saga_id=saga_id, state="done", before=row.before, after=row.after)


@router.post("/sagas/{saga_id}/simulate")
async def simulate(request: Request, saga_id: SagaId, proposed: Proposed, who: Reader) -> Simulated:
    """Tell what an action would do now, as the core decides it; nothing is written or sent, so readers may ask too.

    404 where the definition is not known: only its code can tell.
    """
    return await preview(web_of(request), saga_id, asking.Wish(proposed.action.value, "", who.name, proposed.step))


@router.get("/actions/{action_id}")
async def action(request: Request, action_id: UUID) -> Answer:
    """Tell what became of something that was asked."""
    database = web_of(request).database
    row = await database.read(lambda c: answer_to(c, action_id, schema=database.schema))
    if row is None:
        saga_id = await database.read(lambda c: asking.asked_of(c, action_id, database.schema))
        return Answer(id=action_id, saga_id=saga_id, state="asked")
    state = "refused" if row.refused else "done"
    told = {"before": row.before, "after": row.after, "refused": row.refused}
    return Answer(id=action_id, saga_id=row.saga_id, state=state, **told)


@router.get("/overview")
async def overview(request: Request) -> Survey:
    """Tell how many are where, which are stuck, and how many ended in each of the last 24 hours."""
    return await overview_of(web_of(request))


@router.get("/definitions")
async def all_definitions(request: Request) -> list[Definition]:
    """Tell which definitions there are, how many sagas in flight need each, and which workers have it."""
    return await definitions_now(web_of(request))


@router.get("/failures")
async def failure_groups(request: Request) -> list[FailureGroup]:
    """Group the blocked sagas by saga, step, reason and error, numbers and ids in it aside."""
    database = web_of(request).database
    return await database.read(lambda c: failures(c, schema=database.schema))


@router.get("/audit")
async def all_audit(request: Request, after: After = None, limit: Limit = 50) -> AuditPage:
    """Tell what operators asked of any saga, the newest first."""
    database = web_of(request).database
    rows = await database.read(lambda c: audits(c, after=after, limit=limit + 1, schema=database.schema))
    return AuditPage(items=rows[:limit], next=rows[limit - 1].id if len(rows) > limit else None)
