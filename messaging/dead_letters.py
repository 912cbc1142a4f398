"""Dead letters: find them, read them, put them back, throw them away. The same over every transport.

    for letter in await found(transport, "payments", Selection(reason="handler-raised")):
        print(letter.id, letter.reason, letter.detail)
    await replay(transport, "payments", Selection(ids={"0198c0de-..."}))

Looking takes nothing out and changes no order. What others have in hand at the moment is not seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol, TypeAlias

from messaging.dead_letter_notes import DeadLetter
from messaging.errors import NotConfirmed, PublishError, TransportError
from messaging.transport import Transport

__all__ = [
    "ALL",
    "DeadLetter",
    "KeepsDeadLetters",
    "Look",
    "Outcome",
    "Selection",
    "TransportWithDeadLetters",
    "found",
    "purge",
    "replay",
]

_AT_ONCE: Final = 50


class Look(Protocol):
    """The dead letters of one queue that were there when the look began."""

    async def next(self) -> DeadLetter | None:
        """The next one, oldest first; None after the last.

        Raises:
            TransportError: the broker went away. What was looked at is where it was.
        """
        ...

    async def replay(self, letter: DeadLetter) -> None:
        """Return a message to its queue, without what was noted about its death, then take the letter out.

        The message keeps its id. Killed in between, it is in both places, which is what a consumer's inbox is for.

        Raises:
            PublishError: the letter stays. Of `NotConfirmed` the message may be back in its queue as well.
        """
        ...

    async def remove(self, letter: DeadLetter) -> None:
        """Take a letter out for good.

        Raises:
            TransportError: the broker went away; the letter may be there still.
        """
        ...


class KeepsDeadLetters(Protocol):
    """A transport whose dead letters can be looked at."""

    def dead_letters(self, queue: str) -> AbstractAsyncContextManager[Look]:
        """Look at the dead letters of a queue, for as long as the block lasts.

        Entering raises `UnknownQueue` at once when the queue has none, and `TransportError` when the broker is away.
        """
        ...

    async def dead_letter_count(self, queue: str) -> int | None:
        """How many there are, those in somebody's hands perhaps not counted; None when the queue keeps none.

        Raises:
            TransportError: the broker is away.
        """
        ...


class TransportWithDeadLetters(Transport, KeepsDeadLetters, Protocol):
    """What each transport of this package is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: those for which everything holds that is said."""

    ids: Collection[str] = ()
    """One of these."""
    reason: str = ""
    """Part of the reason, in capitals or not."""
    type: str = ""
    """The message's wire name."""
    died_before: datetime | None = None

    def __contains__(self, letter: DeadLetter) -> bool:
        return (
            (not self.ids or letter.id in self.ids)
            and self.reason.lower() in letter.reason.lower()
            and self.type in ("", letter.envelope.type)
            and (self.died_before is None or (letter.died_at is not None and letter.died_at < self.died_before))
        )


ALL: Final = Selection()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one letter."""

    id: str
    queue: str
    error: PublishError | TransportError | None = None
    """Why it stays where it is."""


Tell: TypeAlias = Callable[[Outcome], None]


async def found(
    keeper: KeepsDeadLetters, queue: str, selection: Selection = ALL, *, limit: int | None = None
) -> list[DeadLetter]:
    """Return the letters of a queue that are meant, oldest first, at most so many.

    Raises:
        UnknownQueue: the queue has no dead letters.
        TransportError: the broker is away.
    """
    letters: list[DeadLetter] = []
    async with keeper.dead_letters(queue) as look:
        while group := await _group(look, selection, _AT_ONCE if limit is None else limit - len(letters)):
            letters += group
    return letters


async def replay(
    keeper: KeepsDeadLetters,
    queue: str,
    selection: Selection = ALL,
    *,
    limit: int | None = None,
    tell: Tell = lambda _: None,
) -> list[Outcome]:
    """Return messages to their queue, each once: what dies of it again is left for the next time.

    Ends early when the broker confirms nothing any more; what has no outcome by then was not tried.

    Args:
        keeper: the transport.
        queue: whose dead letters.
        selection: which of them.
        limit: at most so many.
        tell: called with each outcome as it comes.

    Raises:
        UnknownQueue: the queue has no dead letters.
        TransportError: the broker is away.
    """
    replayed: set[str] = set()

    async def act(look: Look, letter: DeadLetter) -> None:
        if letter.envelope.message_id in replayed:
            raise _stays(letter, "a message of this id was replayed just now, so this one is left for the next time")
        if letter.lost_headers:
            raise _stays(letter, f"it lost {letter.lost_headers} headers when it died, so it is not what it was")
        replayed.update(filter(None, [letter.envelope.message_id]))
        await look.replay(letter)

    return await _each(keeper, queue, selection, limit, act, tell)


async def purge(
    keeper: KeepsDeadLetters,
    queue: str,
    selection: Selection = ALL,
    *,
    limit: int | None = None,
    tell: Tell = lambda _: None,
) -> list[Outcome]:
    """Throw letters away for good. Arguments and errors are those of `replay`."""

    async def act(look: Look, letter: DeadLetter) -> None:
        await look.remove(letter)

    return await _each(keeper, queue, selection, limit, act, tell)


async def _each(
    keeper: KeepsDeadLetters,
    queue: str,
    selection: Selection,
    limit: int | None,
    act: Callable[[Look, DeadLetter], Awaitable[None]],
    tell: Tell,
) -> list[Outcome]:
    outcomes: list[Outcome] = []

    async def settled(look: Look, letter: DeadLetter) -> Outcome:
        outcome = Outcome(letter.id, queue, await _error_of(act(look, letter)))
        tell(outcome)
        return outcome

    async with keeper.dead_letters(queue) as look:
        while group := await _group(look, selection, _AT_ONCE if limit is None else limit - len(outcomes)):
            done = await asyncio.gather(*(settled(look, letter) for letter in group))
            outcomes += done
            if all(isinstance(outcome.error, NotConfirmed) for outcome in done):
                break
    return outcomes


async def _error_of(acting: Awaitable[None]) -> PublishError | TransportError | None:
    try:
        await acting
    except (PublishError, TransportError) as error:
        return error
    return None


async def _group(look: Look, selection: Selection, room: int) -> list[DeadLetter]:
    """The next few that are meant; empty after the last."""
    group: list[DeadLetter] = []
    while len(group) < min(room, _AT_ONCE) and (letter := await look.next()) is not None:
        if letter in selection:
            group.append(letter)
    return group


def _stays(letter: DeadLetter, problem: str) -> PublishError:
    return PublishError(letter.id, f"queue {letter.queue!r}", problem)
