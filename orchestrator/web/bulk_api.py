"""Bulk actions as resources: begin one, follow it, read a result for each saga, stop it."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field, model_validator
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from orchestrator.failures import failures
from orchestrator.instance import SagaStatus
from orchestrator.status import SagaFilter, ids_of
from orchestrator.web import bulk
from orchestrator.web.access import Operator, Who, reading
from orchestrator.web.api import MOST, Limit
from orchestrator.web.api import router as sagas_router
from orchestrator.web.asking import Once, Wish
from orchestrator.web.finding import allowed, read_where
from orchestrator.web.problems import API, Problem
from orchestrator.web.web import Web, web_of
from orchestrator.web.words import Action, IdempotencyKey, Reason, Word

router = APIRouter(
    prefix=f"{API}/bulk", responses=sagas_router.responses, dependencies=[Depends(reading)], tags=["bulk"]
)


class Selection(BaseModel):
    """Those for which all holds that is said; those that have ended are left out unless `status` says otherwise."""

    saga: Word | None = None
    status: SagaStatus | None = None
    key: Word | None = None
    step: Word | None = None
    state: dict[Word, Word | int | bool | None] = Field(
        default_factory=dict, max_length=10, description='Values that states have: `{"customer": "c-17"}`'
    )

    def filter(self) -> SagaFilter:
        """As the database is asked."""
        ended = None if self.status else False
        where = read_where(self.state)
        return SagaFilter(saga=self.saga, status=self.status, key=self.key, step=self.step, ended=ended, where=where)


class NewBulk(BaseModel):
    """One action on many sagas: on those that are named, or selected, or of a group of failures."""

    action: Action
    reason: Reason
    saga_ids: list[UUID] | None = Field(default=None, min_length=1, max_length=100_000)
    where: Selection | None = None
    failure_group: Word | None = Field(default=None, description="`id` of a group of GET /api/failures")
    per_second: int | None = Field(default=None, ge=1, le=1000, description="At most so many in a second")

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if sum(one is not None for one in (self.saga_ids, self.where, self.failure_group)) != 1:
            raise ValueError("say which sagas: one of saga_ids, where, failure_group")
        return self


class Results(BaseModel):
    """A result for each saga, in order."""

    items: list[bulk.Result]
    next: int | None = Field(description="`after` of the next page; null after the last")


@router.post("", status_code=HTTPStatus.CREATED)
async def create(
    request: Request, response: Response, new: NewBulk, who: Operator, idempotency_key: IdempotencyKey = ""
) -> bulk.Bulk:
    """Begin a bulk action. The ids are frozen now: what comes to match later is not concerned."""
    begun = await begun_bulk(web_of(request), new, who, idempotency_key)
    response.headers["location"] = f"{request.scope.get('root_path', '')}{API}/bulk/{begun.id}"
    return begun


async def begun_bulk(web: Web, new: NewBulk, who: Who, key: str) -> bulk.Bulk:
    """Find the sagas that are meant, and begin.

    Raises:
        Problem: there are none, or too many.
    """
    database, most = web.database, web.settings.bulk_per_second
    wish, once = Wish(new.action.value, new.reason, who.name), Once.of(key, "bulk", new.model_dump_json(), who.name)

    def work(connection: Connection) -> UUID:
        def meant() -> Sequence[UUID]:
            return _meant(connection, new, web)

        pace = min(new.per_second or most, most)
        return bulk.begin(connection, wish, meant, once, per_second=pace, schema=database.schema)

    try:
        bulk_id = await database.write(work)
    except IntegrityError:  # two at once under one key: the other was first
        bulk_id = await database.write(work)
    web.bulks.ensure()
    return await database.read(lambda c: bulk.get_bulk(c, bulk_id, database.schema))


def _meant(connection: Connection, new: NewBulk, web: Web) -> Sequence[UUID]:
    most, schema = web.settings.bulk_sagas, web.database.schema
    ids: Sequence[UUID]
    if new.saga_ids is not None:
        ids = new.saga_ids
    elif new.failure_group is not None:
        groups = failures(connection, schema=schema)
        ids = next((group.saga_ids for group in groups if group.id == new.failure_group), ())
    else:
        which, _ = allowed(connection, (new.where or Selection()).filter(), web.registry, schema)
        ids = ids_of(connection, which, limit=most + 1, schema=schema)
    if not ids:
        raise Problem(HTTPStatus.CONFLICT, "nothing-meant", "no saga is meant, so there is nothing to do")
    if len(ids) > most:
        text = f"more than {most} sagas are meant, and one bulk action has so many at most (DASHBOARD_BULK_SAGAS)"
        raise Problem(HTTPStatus.CONFLICT, "too-many-sagas", text)
    return ids


@router.get("")
async def newest(request: Request, limit: Annotated[int, Query(ge=1, le=50)] = 20) -> list[bulk.Bulk]:
    """List bulk actions, the newest first."""
    web = web_of(request)
    web.bulks.ensure()
    return await web.database.read(lambda c: bulk.list_bulks(c, limit=limit, schema=web.database.schema))


@router.get("/{bulk_id}")
async def progress(request: Request, bulk_id: UUID) -> bulk.Bulk:
    """Tell how far a bulk action is."""
    web = web_of(request)
    web.bulks.ensure()
    return await web.database.read(lambda c: bulk.get_bulk(c, bulk_id, web.database.schema))


@router.get("/{bulk_id}/results")
async def results(
    request: Request,
    bulk_id: UUID,
    after: Annotated[int, Query(ge=-1, le=1_000_000, description="`next` of the page before")] = -1,
    limit: Limit = MOST,
    outcome: Annotated[bulk.Outcome | None, Query(description="Only of those")] = None,
) -> Results:
    """Read what became of each saga, in order."""
    database = web_of(request).database

    def read(connection: Connection) -> list[bulk.Result]:
        bulk.get_bulk(connection, bulk_id, database.schema)
        page = {"after": after, "limit": limit + 1, "only": outcome, "schema": database.schema}
        return bulk.results(connection, bulk_id, **page)  # type: ignore[arg-type]

    rows = await database.read(read)
    return Results(items=rows[:limit], next=rows[limit - 1].position if len(rows) > limit else None)


@router.post("/{bulk_id}/stop")
async def stop(request: Request, bulk_id: UUID, _: Operator) -> bulk.Bulk:
    """Ask no further saga. Those that are asked get their answers."""
    database = web_of(request).database

    def work(connection: Connection) -> bulk.Bulk:
        bulk.stop(connection, bulk_id, database.schema)
        return bulk.get_bulk(connection, bulk_id, database.schema)

    return await database.write(work)
