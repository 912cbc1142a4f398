"""Publishes commands after their commit, beside the engine, and remembers what became of each.

Confirmed sends are marks, which the engine's next transaction writes; a mark that is lost costs a second
copy with the same message id, nothing else. What could not be sent is put off by its own backoff.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from messaging import failpoints
from messaging.errors import NotConfirmed, PublishError
from messaging.logged import ids_of
from messaging.retry import Retry, wait_before
from messaging.transport import Outgoing, Transport
from orchestrator.outgoing import command_message
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.store import SagaCommand
from orchestrator.watching import Watching

logger = logging.getLogger(__name__)

_UNROUTABLE: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(minutes=1))
_NOT_CONFIRMED: Final = Retry(max_attempts=None, backoff=timedelta(seconds=1), cap=timedelta(seconds=10))


class Sender:
    """Takes committed commands and publishes them in order, a batch at a time.

    Args:
        transport: where to.
        reply_to: the full name of the reply queue.
        timeout: for a publish to be confirmed; at most half of the grace that claims were written with.
        batch: messages published at once.
        backlog: commands waiting here before `send` itself waits.
        watching: who is told.
        tokens: makes the tokens by which commands may be answered later; None: they have none.
        now: what time it is.
    """

    def __init__(
        self,
        transport: Transport,
        reply_to: str,
        *,
        timeout: timedelta,
        batch: int = 500,
        backlog: int = 4000,
        watching: Watching | None = None,
        tokens: ReplyTokens | None = None,
        now: Callable[[], datetime] = partial(datetime.now, UTC),  # noqa: B008 - called each time
    ) -> None:
        self._watching, self._tokens = watching, tokens
        self._transport, self._reply_to, self._timeout = transport, reply_to, timeout
        self._batch, self._backlog, self._now = batch, backlog, now
        self._queue: deque[SagaCommand] = deque()
        self._in_hand: set[UUID | None] = set()
        self._filled, self._room, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._idle.set()
        self._marks: list[UUID] = []
        self._problems: dict[UUID, tuple[datetime, str]] = {}

    async def send(self, commands: Sequence[SagaCommand]) -> None:
        """Hand over commands whose rows are committed; waits while too many are under way.

        What is in hand already is not taken again: a broker that stalls must not make copies.
        """
        await self._room.wait()
        new = [command for command in commands if command.record.command_id not in self._in_hand]
        if not new:
            return
        self._queue.extend(new)
        self._in_hand.update(command.record.command_id for command in new)
        self._idle.clear()
        self._filled.set()
        if len(self._queue) >= self._backlog:
            self._room.clear()

    async def run(self) -> None:
        """Publish for ever; cancel to end. No outcome of a publish ends it."""
        while True:
            await self._filled.wait()
            await self.publish_batch()

    async def publish_batch(self) -> None:
        """Publish a batch of what was handed over, and note what became of each."""
        commands = [self._queue.popleft() for _ in range(min(self._batch, len(self._queue)))]
        if commands:
            await self._publish(commands)
        self._in_hand.difference_update(command.record.command_id for command in commands)
        if len(self._queue) < self._backlog:
            self._room.set()
        if not self._queue:
            self._filled.clear()
            self._idle.set()

    async def drained(self, timeout: timedelta) -> bool:
        """Wait until everything handed over has an outcome; False if that took longer."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout.total_seconds())
        except TimeoutError:
            return False
        return True

    async def _publish(self, commands: Sequence[SagaCommand]) -> None:
        now = self._now()
        reply_to, tokens = self._reply_to, self._tokens
        messages = [command_message(command, reply_to=reply_to, now=now, tokens=tokens) for command in commands]
        if self._watching is not None:
            messages = self._watching.sending(messages)
        outcomes = await self._transport.publish(messages, timeout=self._timeout)
        if self._watching is not None:
            self._watching.sent(messages, outcomes)
        failpoints.reached("engine.published")
        for command, outgoing, outcome in zip(commands, messages, outcomes, strict=True):
            command_id = command.record.command_id
            assert command_id is not None
            if outcome is None:
                self._marks.append(command_id)
            else:
                self._problems[command_id] = (self._try_again_at(command, outgoing, outcome), outcome.problem)

    def _try_again_at(self, command: SagaCommand, outgoing: Outgoing, error: PublishError) -> datetime:
        tries = max(command.send_attempts, 1)
        if tries == 1:
            step = command.record.key.step
            text = "%s. Its saga waits (saga %s, step %s)."
            logger.warning(text, error, command.saga_id, step, extra=ids_of(outgoing.envelope))
        policy = _NOT_CONFIRMED if isinstance(error, NotConfirmed) else _UNROUTABLE
        return self._now() + wait_before(policy, tries, seed=error.message_id)

    # -- what the next transaction writes

    @property
    def has_news(self) -> bool:
        """Whether there is something to write."""
        return bool(self._marks or self._problems)

    def take_marks(self, limit: int = 1000) -> list[UUID]:
        """Confirmed attempts not yet marked; give them back if the transaction fails."""
        taken, self._marks = self._marks[:limit], self._marks[limit:]
        return taken

    def take_problems(self) -> dict[UUID, tuple[datetime, str]]:
        """Attempts that could not be sent; give them back if the transaction fails."""
        taken, self._problems = self._problems, {}
        return taken

    def give_back(self, marks: Iterable[UUID], problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Take back what was not written."""
        self._marks.extend(marks)
        self._problems = {**problems, **self._problems}
