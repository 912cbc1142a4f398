"""Publishes commands after their commit, beside the engine, and remembers what became of each.

Confirmed sends are marks. A mark waits a while for the answer that says the same; then the engine's next transaction
writes it. One that is lost costs a second copy with the same message id, nothing else. What could not be sent is put
off by its own backoff.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import islice
from typing import Final
from uuid import UUID

from messaging import failpoints
from messaging.errors import NotConfirmed, PublishError
from messaging.logged import ids_of
from messaging.retry import Retry, wait_before
from messaging.transport import Outgoing, Transport
from orchestrator.copies import copied
from orchestrator.instance import SagaInstance
from orchestrator.outgoing import command_message
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.store_records import Locked, SagaCommand
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
        marks_after: how long a confirmed send waits for its answer, which says the same, before it is to be marked.
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
        marks_after: timedelta = timedelta(0),
    ) -> None:
        self._watching, self._tokens = watching, tokens
        self._transport, self._reply_to, self._timeout = transport, reply_to, timeout
        self._batch, self._backlog, self._now = batch, backlog, now
        self._queue: deque[SagaCommand] = deque()
        self._in_hand: set[UUID | None] = set()
        self._filled, self._room, self._idle = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._room.set()
        self._idle.set()
        self._marks: dict[UUID, datetime] = {}
        """Each with the instant from which on it is to be written; in that order."""
        self._marks_after = marks_after
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
        ripe = self._now() + self._marks_after
        for command, outgoing, outcome in zip(commands, messages, outcomes, strict=True):
            command_id = command.record.command_id
            assert command_id is not None
            if outcome is None:
                self._marks[command_id] = ripe
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
        return bool(self._problems) or any(ripe <= self._now() for ripe in islice(self._marks.values(), 1))

    def forget(self, command_ids: Iterable[UUID]) -> None:
        """Forget marks of attempts whose rows say that they were sent: they were marked, or answered."""
        for command_id in command_ids:
            self._marks.pop(command_id, None)

    def unmarked(self, locked: Locked) -> set[UUID]:
        """Attempts of these sagas that are confirmed, and not marked yet."""
        if not self._marks:
            return set()
        records = (record for saga in locked.sagas.values() for record in saga.steps.values())
        return {
            one.command_id for one in records if one.send_after and one.command_id and one.command_id in self._marks
        }

    def hurry(self) -> None:
        """Have every mark written with the next transaction: no answers are waited for any more."""
        self._marks_after = timedelta(0)
        self._marks = dict.fromkeys(self._marks, self._now())

    def marks(self, limit: int = 1000) -> list[UUID]:
        """Confirmed attempts that are to be marked now; they are until `forget`."""
        now = self._now()
        return [command_id for command_id, ripe in islice(self._marks.items(), limit) if ripe <= now]

    def take_problems(self) -> dict[UUID, tuple[datetime, str]]:
        """Attempts that could not be sent; give them back if the transaction fails."""
        taken, self._problems = self._problems, {}
        return taken

    def give_back(self, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Take back what was not written."""
        self._problems = {**problems, **self._problems}

    def remember(self, marks: Iterable[UUID]) -> None:
        """Take over what another one knew to be confirmed."""
        self._marks.update(dict.fromkeys(marks, self._now()))


def counting_as_sent(locked: Locked, sent: Set[UUID]) -> Locked:
    """The same sagas, with these attempts as their rows are once they are marked."""
    return Locked(locked.now, {saga.id: _counting(saga, locked.now, sent) for saga in locked.sagas.values()})


def _counting(saga: SagaInstance, now: datetime, sent: Set[UUID]) -> SagaInstance:
    marked = {
        key: copied(record, send_after=None, sent_at=now)
        for key, record in saga.steps.items()
        if record.command_id in sent
    }
    return copied(saga, steps={**saga.steps, **marked}) if marked else saga
