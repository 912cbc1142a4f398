"""The broker's queues as they are now, asked within bounds: a broker that is away keeps nobody waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from messaging.errors import MessagingError
from messaging.queue_state import TellsOfQueues

if TYPE_CHECKING:
    from messaging.dead_letters import KeepsDeadLetters
    from orchestrator.web.web import Letters

PATIENCE_SECONDS: Final = 3.0
MOST_QUEUES: Final = 200
_AT_ONCE: Final = 8
NO_BROKER: Final = (
    "No broker is configured here, so nobody can tell what waits in its queues, who takes from them, and what died "
    "there. saga dashboard and saga run --dashboard ask the broker of MESSAGING_BROKER_URL; an application of yours "
    "gives create_app(letters=...)"
)
IN_MEMORY: Final = (
    "Messages stay in each process (memory://), so nobody else can tell what is ready there. What is not handled yet "
    "is in the outbox still"
)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A queue of the installation, or of a participant, at one moment."""

    queue: str
    missing: bool
    """The broker has none of this name."""
    ready: int | None
    """Messages that nobody has in hand. Null where that is not told, as `consumers`."""
    consumers: int | None
    dead_letters: int | None
    """Null where it keeps none."""


@dataclass(frozen=True, slots=True)
class BrokerQueues:
    """What the broker told."""

    queues: Sequence[QueueRow]
    """As they were at most ten seconds ago."""
    note: str
    """What was not told and why; empty if all was."""


@dataclass(slots=True)
class _Look:
    """What is asked, and what was answered so far."""

    queues: list[str] = field(default_factory=list[str])
    rows: dict[str, QueueRow] = field(default_factory=dict[str, QueueRow])
    note: str = ""

    async def take(self, letters: Letters, also: Iterable[str]) -> None:
        """Ask about all of them, a few at a time."""
        try:
            async with letters() as (keeper, known):
                self.queues = list(dict.fromkeys([*known, *also]))[:MOST_QUEUES]
                self.note = "" if isinstance(keeper, TellsOfQueues) else IN_MEMORY
                turns = asyncio.Semaphore(_AT_ONCE)
                await asyncio.gather(*(self._ask(keeper, queue, turns) for queue in self.queues))
        except MessagingError as error:
            self.note = f"The broker could not be asked: {error}"

    async def _ask(self, keeper: KeepsDeadLetters, queue: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            tells = isinstance(keeper, TellsOfQueues)
            state = await keeper.queue_state(queue) if isinstance(keeper, TellsOfQueues) else None
            dead = await keeper.dead_letter_count(queue)
        ready, consumers = (None, None) if state is None else (state.ready, state.consumers)
        self.rows[queue] = QueueRow(queue, tells and state is None, ready, consumers, dead)

    def told(self) -> BrokerQueues:
        """What is known by now."""
        return BrokerQueues([self.rows[queue] for queue in self.queues if queue in self.rows], self.note)


_asking: Final = set[asyncio.Task[None]]()


async def queues_now(letters: Letters | None, also: Iterable[str]) -> BrokerQueues:
    """Ask the broker about the queues that are known to whoever opens it, and these.

    Answers within `PATIENCE_SECONDS` with what was told by then.
    """
    if letters is None:
        return BrokerQueues((), NO_BROKER)
    look = _Look()
    if not await _within(PATIENCE_SECONDS, look.take(letters, also)):
        missing = ", ".join(queue for queue in look.queues if queue not in look.rows)
        look.note = f"The broker did not answer within {PATIENCE_SECONDS:g} s" + (
            f" about {missing}" if missing else ""
        )
    return look.told()


async def _within(seconds: float, work: Awaitable[None]) -> bool:
    """Do it, and whether it was done in time; what was not is left to end by itself, which may take longer."""
    task = asyncio.ensure_future(work)
    _asking.add(task)
    task.add_done_callback(_asking.discard)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        return False
    task.result()
    return True
