"""The pages that are read; `doing` has what their forms ask for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from orchestrator.differences import value_text
from orchestrator.evidence import Evidence, read_evidence
from orchestrator.failures import MOST_FAILURES, failures
from orchestrator.graph_svg import svg
from orchestrator.instance import SagaStatus
from orchestrator.recorded import Recorded, read_recorded
from orchestrator.sql.search import Found, saga_names
from orchestrator.state_story import state_story
from orchestrator.status import AuditRow, SagaFilter, SagaRow, TimelineRow, get_saga, list_sagas, missing, timeline_of
from orchestrator.web import bulk
from orchestrator.web.access import Reader, access_of
from orchestrator.web.api import Where
from orchestrator.web.asking import Wish
from orchestrator.web.definition_pages import picture
from orchestrator.web.finding import allowed, read_where
from orchestrator.web.gantt import MOST_ROWS, gantt, kind_of, name_of
from orchestrator.web.happened import happened
from orchestrator.web.histograms import histogram, told
from orchestrator.web.hours import chart
from orchestrator.web.live import mark_of_list, mark_of_saga
from orchestrator.web.overview import overview_of
from orchestrator.web.previewing import preview as previewed
from orchestrator.web.problems import Problem
from orchestrator.web.rendering import link, render, seen_at
from orchestrator.web.surveys import audits
from orchestrator.web.web import Web, web_of
from orchestrator.web.words import Action, Word
from orchestrator.why import explain

_PAGE: Final = 50
MOST_STATES: Final = 50
MOST_CHANGES: Final = 50
"""Of each of these; the API has them all."""

router = APIRouter()


async def problem_page(request: Request, problem: Problem) -> Response:
    """An error as a page; whoever has to sign in is sent to do so."""
    if problem.status is HTTPStatus.UNAUTHORIZED and web_of(request).access.by_token and request.method == "GET":
        return seen_at(request, "/login")
    try:
        who = access_of(request).who(request)
    except Problem:
        who = None
    page = render(request, who, "problem.html", status=int(problem.status), problem=problem)
    page.headers.update(problem.headers)
    return page


@router.get("/")
async def overview(request: Request, who: Reader) -> HTMLResponse:
    """How many are where, what is stuck, how they end."""
    found = await overview_of(web_of(request))
    return render(request, who, "overview.html", survey=found, chart=chart(found.hours), histogram=histogram, took=told)


@router.get("/sagas")
async def sagas(
    request: Request,
    who: Reader,
    q: Word = "",
    saga: Word = "",
    status: SagaStatus | Literal[""] = "",
    step: Word = "",
    where: Where = (),
    after: UUID | None = None,
) -> Response:
    """The list; a search for an id leads to its saga."""
    web, conditions = web_of(request), [one for one in where if one.strip()]
    which = SagaFilter(
        saga=saga or None, status=status or None, key=q or None, step=step or None, where=read_where(conditions)
    )
    found = await web.database.read(lambda c: _listed(c, web, which, q, after))
    if found.is_id:
        return seen_at(request, f"/sagas/{_as_id(q)}")
    rows, asked = found.rows, {"q": q, "saga": saga, "status": str(status), "step": step, "where": conditions}
    links = {
        "older": link(request, "/sagas", **asked, after=rows[_PAGE - 1].saga_id) if len(rows) > _PAGE else "",
        "newest": link(request, "/sagas", **asked),
        "live": "" if after or found.scanned else _live(request, which, rows[:_PAGE], conditions),
        "here": link(request, "/sagas", **asked, after=after),
    }
    return render(
        request,
        who,
        "sagas.html",
        found=found,
        rows=rows[:_PAGE],
        state=which.where,
        asked=asked,
        after=after,
        links=links,
    )


@dataclass(frozen=True, slots=True)
class _List:
    """A page of the list, read at one moment; `rows` has one more than is shown, if there is one."""

    is_id: bool
    rows: Sequence[SagaRow]
    names: Sequence[str]
    scanned: Sequence[Found]


def _listed(connection: Connection, web: Web, which: SagaFilter, q: str, after: UUID | None) -> _List:
    schema, as_id = web.database.schema, _as_id(q)
    meant, found = allowed(connection, which, web.registry, schema)
    return _List(
        as_id is not None and get_saga(connection, as_id, schema=schema) is not None,
        list_sagas(connection, meant, after=after, limit=_PAGE + 1, schema=schema),
        saga_names(connection, schema=schema),
        found,
    )


def _live(request: Request, which: SagaFilter, rows: Sequence[SagaRow], where: Sequence[str]) -> str:
    """Where the list is told of its changes."""
    asked = {"saga": which.saga, "status": which.status, "key": which.key, "step": which.step, "where": where}
    return link(request, "/api/events", **asked, limit=_PAGE, seen=mark_of_list(rows))


def _as_id(text: str) -> UUID | None:
    try:
        return UUID(text.strip())
    except ValueError:
        return None


@router.get("/sagas/{saga_id}")
async def saga(
    request: Request, who: Reader, saga_id: UUID, asked: UUID | None = None, preview: Action | None = None
) -> HTMLResponse:
    """One saga: why it stands where it stands, what is safe to do, what it did, said and knows."""
    web = web_of(request)
    found = await web.database.read(lambda c: _known_of(c, saga_id, asked, web.database.schema))
    drawn = _drawn(web, found, datetime.now(UTC))
    known = found.definition_in(web)
    would = await previewed(web, saga_id, Wish(preview.value, "", who.name)) if known and preview else None
    row, mark = found.evidence.saga, found.mark
    links = {
        "graph": link(request, f"/sagas/{saga_id}/graph.svg", at=mark) if known else "",
        "live": "" if row.status.terminal else link(request, f"/api/sagas/{saga_id}/events", seen=mark),
        "here": link(request, f"/sagas/{saga_id}", asked=asked),
    }
    drawn |= {"known": known, "previewed": preview, "would": would}
    return render(request, who, "saga.html", saga=row, found=found, asked=asked, links=links, **drawn)


@router.get("/sagas/{saga_id}/graph.svg")
async def saga_graph(request: Request, _: Reader, saga_id: UUID) -> Response:
    """A saga's steps as a picture, with what became of each."""
    web, schema = web_of(request), web_of(request).database.schema
    found = await web.database.read(lambda c: _known_of(c, saga_id, None, schema))
    definition = None if web.registry is None else web.registry.find(found.recorded.pin)
    if definition is None:
        raise Problem(HTTPStatus.NOT_FOUND, "unknown-definition", "this process does not have that saga's definition")
    return picture(svg(type(definition), happened(found.timeline)))


@dataclass(frozen=True, slots=True)
class _Known:
    """What a saga's page shows, read at one moment."""

    mark: str
    evidence: Evidence
    recorded: Recorded
    timeline: Sequence[TimelineRow]
    answer: AuditRow | None

    def definition_in(self, web: Web) -> bool:
        """Whether this process has its definition."""
        return web.registry is not None and web.registry.find(self.recorded.pin) is not None


def _known_of(connection: Connection, saga_id: UUID, asked: UUID | None, schema: str | None) -> _Known:
    mark, _ = mark_of_saga(connection, saga_id, schema)  # first, so that what changes meanwhile is told again
    evidence = read_evidence(connection, saga_id, schema=schema)
    recorded = read_recorded(connection, saga_id, states=MOST_STATES + 1, schema=schema)
    if evidence is None or recorded is None:
        raise missing(connection, saga_id, schema=schema)
    answer = next((row for row in recorded.audit if asked and row.signal_id == asked), None)
    return _Known(mark, evidence, recorded, timeline_of(connection, saga_id, schema=schema), answer)


def _drawn(web: Web, found: _Known, now: datetime) -> dict[str, Any]:
    payloads, story = state_story(found.recorded, web.registry)
    return {
        "why": explain(found.evidence, now=now),
        "gantt": gantt(found.evidence.saga, found.timeline, found.recorded.history, now),
        "timeline": found.timeline[:MOST_ROWS],
        "payloads": payloads,
        "states": story.steps[:MOST_STATES],
        "more_states": len(story.steps) > MOST_STATES,
        "most_changes": MOST_CHANGES,
        "states_note": story.note,
        "value_text": value_text,
        "whole": _whole,
        "kind_of": kind_of,
        "name_of": name_of,
    }


def _whole(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


@router.get("/failures")
async def failure_groups(request: Request, who: Reader) -> HTMLResponse:
    """What is blocked, grouped by what went wrong."""
    database = web_of(request).database
    groups = await database.read(lambda c: failures(c, schema=database.schema))
    return render(request, who, "failures.html", groups=groups, most=MOST_FAILURES)


@router.get("/bulk")
async def bulks(request: Request, who: Reader) -> HTMLResponse:
    """Actions on many sagas, the newest first."""
    web = web_of(request)
    web.bulks.ensure()
    found = await web.database.read(lambda c: bulk.list_bulks(c, limit=_PAGE, schema=web.database.schema))
    return render(request, who, "bulks.html", bulks=found)


@router.get("/bulk/{bulk_id}")
async def one_bulk(
    request: Request, who: Reader, bulk_id: UUID, after: Annotated[int, Query(ge=-1, le=1_000_000)] = -1
) -> HTMLResponse:
    """One of them: how far it is, and what was refused."""
    web = web_of(request)
    web.bulks.ensure()
    schema = web.database.schema

    def read(connection: Connection) -> dict[str, Any]:
        found = bulk.get_bulk(connection, bulk_id, schema)
        page = bulk.results(connection, bulk_id, after=after, limit=_PAGE + 1, schema=schema)
        return {"bulk": found, "results": page}

    found = await web.database.read(read)
    page = found.pop("results")
    further = link(request, f"/bulk/{bulk_id}", after=page[_PAGE - 1].position) if len(page) > _PAGE else ""
    here = link(request, f"/bulk/{bulk_id}", after=after if after >= 0 else None)
    return render(request, who, "bulk.html", results=page[:_PAGE], further=further, here=here, **found)


@router.get("/audit")
async def audit(request: Request, who: Reader, after: UUID | None = None) -> HTMLResponse:
    """What operators asked of which saga, and what became of it."""
    database = web_of(request).database
    rows = await database.read(lambda c: audits(c, after=after, limit=_PAGE + 1, schema=database.schema))
    older = link(request, "/audit", after=rows[_PAGE - 1].id) if len(rows) > _PAGE else ""
    return render(request, who, "audit.html", rows=rows[:_PAGE], older=older)


@router.get("/login", response_model=None)
async def login_page(request: Request) -> Response:
    """Where somebody signs in with a token."""
    if not web_of(request).access.by_token:
        return RedirectResponse(link(request, "/"), 303)
    return render(request, None, "login.html", wrong=False)
