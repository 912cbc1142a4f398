"""Bookings over HTTP: `uvicorn fastapi_app.main:api`.

A booking and its saga are written in one transaction, which has committed when the client reads 202.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from fastapi_app.database import Booking, Sessions, engine, prepare
from fastapi_app.sagas import BookingState, BookSeatSaga, app, seats
from messaging.settings import MessagingSettings
from orchestrator import SagaClient, UnknownSaga, running

sagas = SagaClient(engine)


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
    await prepare()
    if MessagingSettings().in_memory:  # nothing configured: saga and service live in this process as well
        async with running(app, seats):
            yield
    else:  # they are processes of their own: saga run fastapi_app.sagas:app fastapi_app.sagas:seats
        yield
    await engine.dispose()


api = FastAPI(title="Bookings", lifespan=lifespan)


async def transaction() -> AsyncGenerator[AsyncSession]:
    """One transaction around the request's function; an exception in it rolls back."""
    async with Sessions.begin() as session:
        yield session


# scope="function" ends the dependency, and so commits, before the response is sent. By default FastAPI sends the
# response first: the client would be told of a booking that may yet fail to commit.
Transaction = Annotated[AsyncSession, Depends(transaction, scope="function")]


class NewBooking(BaseModel):
    id: UUID  # chosen by the client, who may so post it again when no answer came
    guest: str
    seat: str


class Accepted(BaseModel):
    saga_id: UUID
    created: bool


class Progress(BaseModel):
    status: str
    step: str | None
    refusal: str


@api.post("/bookings", status_code=202)
async def book(new: NewBooking, session: Transaction) -> Accepted:
    state = BookingState(booking_id=new.id, guest=new.guest, seat=new.seat)
    started = await sagas.start(BookSeatSaga, state, key=str(new.id), session=session)
    if started.created:
        session.add(Booking(id=new.id, guest=new.guest, seat=new.seat))
        try:
            await session.flush()
        except IntegrityError:  # the saga's start is rolled back too
            raise HTTPException(409, f"{new.guest} has a booking already") from None
    return Accepted(saga_id=started.id, created=started.created)


@api.get("/bookings/{saga_id}")
async def progress(saga_id: UUID) -> Progress:
    try:
        row = await sagas.get(saga_id)
        state = await sagas.state(BookSeatSaga, saga_id)
    except UnknownSaga:
        raise HTTPException(404, f"no booking has the saga {saga_id}") from None
    return Progress(status=row.status.value, step=row.current_step, refusal=state.refusal)
