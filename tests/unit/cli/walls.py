"""A saga that ends in any way a test asks for: one command, and maybe a wait."""

from __future__ import annotations

import queue
import threading
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from messaging import Accepted, Command, Context, Event, Failure, Reply, Retry, Service
from orchestrator import Orchestrator, Saga, Searchable, Step, WaitForEvent


class Wall(BaseModel):
    name: Annotated[str, Field(min_length=1), Searchable]
    ends: Literal["well", "refused", "blocked", "waiting", "later"] = "well"
    coats: int = 0
    remark: str = ""


class Painted(Reply): ...


class PaintRefused(Failure): ...


class Paint(Command[Painted], failures=(PaintRefused,)):
    name: str
    ends: str


class Stripped(Reply): ...


class Strip(Command[Stripped]):
    name: str


class PaintDried(Event):
    name: str


class Painting(Step[Wall, Painted]):
    participant = "painter"
    retry = Retry(max_attempts=1)
    on_exhausted = "block"

    def command(self, state: Wall) -> Paint:
        return Paint(name=state.name, ends=state.ends)

    def on_reply(self, state: Wall, reply: Painted) -> None:
        state.coats, state.remark = state.coats + 1, f"{state.name} is painted"

    def compensation(self, state: Wall) -> Strip:
        return Strip(name=state.name)


class Drying(WaitForEvent[Wall, PaintDried]):
    timeout = timedelta(hours=1)

    def when(self, state: Wall) -> bool:
        return state.ends == "waiting"

    def awaited_key(self, state: Wall) -> str:
        return state.name

    def event_key(self, event: PaintDried) -> str:
        return event.name


class PaintWallSaga(Saga[Wall]):
    name = "paint-wall"
    keep_states = True
    steps = (Painting(), Drying())


painter = Service("painter")
ladder_is_back = threading.Event()
tokens: queue.Queue[str] = queue.Queue()
"""Of paint that is ordered and whose painter answers later."""


@painter.handles(Paint)
async def paint(command: Paint, context: Context[None]) -> Painted | PaintRefused | Accepted:
    if command.ends == "refused":
        return PaintRefused(reason="the wall is wet")
    if command.ends == "blocked" and not ladder_is_back.is_set():
        raise RuntimeError("the ladder is gone")
    if command.ends == "later":
        tokens.put(context.reply_token)
        return Accepted(within=timedelta(hours=1))
    return Painted()


@painter.handles(Strip)
async def strip(command: Strip) -> Stripped:
    return Stripped()


app = Orchestrator(sagas=[PaintWallSaga])
