"""Sagas that get stuck, each in a way of its own, until somebody mends what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from messaging import Accepted, Command, Context, Event, Failure, Reply, Service
from orchestrator import (
    Delay,
    ForEach,
    ItemStep,
    LocalStep,
    Orchestrator,
    Retry,
    Saga,
    Step,
    SubSaga,
    WaitForEvent,
)

HOURS = timedelta(hours=12)
ONCE = Retry(max_attempts=1)
SOME = Retry(max_attempts=5, backoff=HOURS, factor=1.0, cap=HOURS)


class Job(BaseModel):
    name: str
    pieces: list[str] = []


class Done(Reply):
    """What a worker says."""


class Do(Command[Done]):
    name: str


class Undo(Command[Done]):
    name: str


class Delivered(Event):
    name: str


class World:
    """What is wrong, until it is mended."""

    mended = False
    token = ""

    def breaks(self) -> None:
        if not self.mended:
            raise RuntimeError("the press is jammed")


world = World()


class Asking(Step[Job, Done]):
    participant = "workers"
    timeout = HOURS
    retry = ONCE

    def command(self, state: Job) -> Do:
        return Do(name=state.name)


class Doing(Asking):
    compensation_retry = ONCE
    on_exhausted = "block"

    def compensation(self, state: Job) -> Undo:
        return Undo(name=state.name)


class AskingSleepers(Doing):
    participant = "sleepers"


class AskingNobody(Doing):
    participant = "wrokers"


class Locking(AskingSleepers):
    lock_timeout = HOURS

    def locks(self, state: Job) -> list[str]:
        return ["press:1"]


class Refusing(Doing):
    """Refused, whatever the worker says to others."""

    def command(self, state: Job) -> Do:
        return Do(name="refused")


class Delivering(Asking):
    pivot = True


class Raising(Doing):
    """Its own code raises at the answer."""

    def on_reply(self, state: Job, reply: Done) -> None:
        world.breaks()


class Often(Doing):
    retry = SOME


class AwaitingDelivery(WaitForEvent[Job, Delivered]):
    timeout = HOURS

    def awaited_key(self, state: Job) -> str:
        return state.name

    def event_key(self, event: Delivered) -> str:
        return event.name


class Resting(Delay[Job]):
    def until(self, state: Job) -> timedelta:
        return HOURS


class Noting(LocalStep[Job]):
    retry = ONCE
    on_exhausted = "block"
    nothing_to_undo = True

    async def run(self, state: Job, session: AsyncSession) -> Failure | None:
        world.breaks()
        return None


class DoingPiece(ItemStep[Job, str, Done]):
    participant = "workers"
    timeout = HOURS
    retry = ONCE
    on_exhausted = "block"
    nothing_to_undo = True

    def command(self, state: Job, item: str) -> Do:
        return Do(name=item)


class DoingPieces(ForEach[Job, str]):
    steps = (DoingPiece(),)

    def items(self, state: Job) -> Iterable[str]:
        return state.pieces

    def item_key(self, item: str) -> str:
        return item


class Subcontract(Saga[Job]):
    steps = (Doing(),)


class Subcontracting(SubSaga[Job, Job]):
    saga = Subcontract
    timeout = HOURS

    def child_state(self, state: Job) -> Job:
        return Job(name="broken")


class ToSleepers(Saga[Job]):
    steps = (AskingSleepers(),)


class ToNobody(Saga[Job]):
    steps = (AskingNobody(),)


class Stalled(Saga[Job]):
    steps = (Doing(),)


class NeedsPress(Saga[Job]):
    steps = (Locking(),)


class GoesBack(Saga[Job]):
    steps = (Doing(), Refusing())


class GoesBackLate(Saga[Job]):
    steps = (Doing(), AskingSleepers())


class AwaitsDelivery(Saga[Job]):
    steps = (AwaitingDelivery(),)


class Exhausted(Saga[Job]):
    steps = (Doing(),)


class TriesOften(Saga[Job]):
    steps = (Often(),)


class AtThePivot(Saga[Job]):
    steps = (Delivering(),)


class RaisesItself(Saga[Job]):
    steps = (Raising(),)


class Rests(Saga[Job]):
    steps = (Resting(),)


class Notes(Saga[Job]):
    steps = (Noting(),)


class InPieces(Saga[Job]):
    steps = (DoingPieces(),)


class HasParts(Saga[Job]):
    steps = (Subcontracting(),)


class Old(Saga[Job]):
    """Of which the orchestrator has a later version only."""

    name = "versioned"
    version = 1
    steps = (AskingSleepers(),)


class New(Saga[Job]):
    name = "versioned"
    version = 2
    steps = (AskingSleepers(), Resting())


def workers(name: str = "workers") -> Service:
    """Who does what sagas ask for, once the world is mended."""
    service = Service(name)

    @service.handles(Do)
    async def do(command: Do, context: Context[None]) -> Done | Failure | Accepted:
        if command.name == "refused":
            return Failure(reason="not today")
        if command.name == "later":
            world.token = context.reply_token
            return Accepted(within=HOURS)
        if command.name.startswith("broken"):
            world.breaks()
        return Done()

    @service.handles(Undo)
    async def undo(command: Undo) -> Done:
        world.breaks()
        return Done()

    return service


SAGAS: list[type[Saga[Any]]] = [
    ToSleepers,
    ToNobody,
    Stalled,
    NeedsPress,
    GoesBack,
    GoesBackLate,
    AwaitsDelivery,
    Exhausted,
    TriesOften,
    AtThePivot,
    RaisesItself,
    Rests,
    Notes,
    InPieces,
    HasParts,
    Subcontract,
    New,
]
app = Orchestrator(sagas=SAGAS)
