"""What operators ask of sagas, one or many: left as signals in the database, then the engine's answers are awaited.

The twins below are the part of `SagaClient` and `BlockingSagaClient` that is about this.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Final, TypeVar
from uuid import UUID

from sqlalchemy import Connection

from messaging.inbox import Answer
from messaging.messages import Failure, Reply
from orchestrator.bulk import PER_SECOND, ActionWord, Bulk, BulkResult, Looks, action
from orchestrator.completing import completion
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import (
    AbandonRequested,
    Asked,
    CancelRequested,
    CompensateRequested,
    PauseRequested,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.sql import client_statements as statements
from orchestrator.sql.search import Found
from orchestrator.status import SagaFilter, ids_of, scanned

T = TypeVar("T")

ANSWERED_WITHIN: Final = timedelta(seconds=10)
_DONE: Final = Reply()


class AsksSagas(ABC):
    """Ask from asyncio."""

    _schema: str | None

    @abstractmethod
    async def _read(self, work: Callable[[Connection], T]) -> T:
        """Run this on a connection."""

    @abstractmethod
    async def _write(self, work: Callable[[Connection], T]) -> T:
        """Run this in a transaction of its own, and tell the engines."""

    async def cancel(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga undone, and wait until an engine has begun to.

        Raises:
            UnknownSaga: none has this id.
            ActionRefused: its state does not allow it; the text says why.
            TimeoutError: no engine took the request within this time; it stays and will be taken.
        """
        await self._ask(saga_id, CancelRequested(reason, by), within)

    async def retry(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga try again, and wait until an engine has begun to.

        Raises:
            UnknownSaga: none has this id.
            ActionRefused: it is not blocked, or elsewhere; the text says where.
            TimeoutError: no engine took the request within this time; it stays and will be taken.
        """
        await self._ask(saga_id, RetryRequested(reason, step, by), within)

    async def pause(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga stand still until it is resumed: nothing is sent, what arrives is kept, time does not count.

        Raises: as `cancel` does; refused when it is paused already.
        """
        await self._ask(saga_id, PauseRequested(reason, by), within)

    async def resume(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a paused saga go on, with what arrived meanwhile first.

        Raises: as `cancel` does; refused when it is not paused.
        """
        await self._ask(saga_id, ResumeRequested(reason, by), within)

    async def skip(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga go on without the step it is blocked at, or without its undo.

        Raises: as `cancel` does; refused when it is not blocked, at another step, or by an error of its code.
        """
        await self._ask(saga_id, SkipRequested(reason, step, by), within)

    async def resolve(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Tell a blocked saga that the step it is blocked at, or its undo, was done by hand.

        Raises: as `cancel` does; refused when it is not blocked, at another step, or by an error of its code.
        """
        await self._ask(saga_id, ResolveRequested(reason, step, by), within)

    async def compensate(
        self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a saga turn back, blocked or not.

        Raises: as `cancel` does; refused when it does so already, or its pivot may have happened.
        """
        await self._ask(saga_id, CompensateRequested(reason, by), within)

    async def abandon(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Give a saga up as it stands: nothing of it is sent, awaited or undone any more.

        Raises: as `cancel` does; refused when it has ended.
        """
        await self._ask(saga_id, AbandonRequested(reason, by), within)

    async def complete(
        self,
        token: str,
        answer: Reply | Failure | Answer = _DONE,
        *,
        reason: str = "",
        by: str = "",
        within: timedelta = ANSWERED_WITHIN,
    ) -> UUID:
        """Answer a command by the reply token that its participant handed out; return the saga's id.

        Args:
            token: `Context.reply_token`, of any attempt of the command.
            answer: the reply, or a failure to refuse; an `Answer` is one in JSON that is checked by the saga alone.
            reason: for the history.
            by: who answers.
            within: how long to wait for an engine to take it.

        Raises:
            UnknownToken: no command of this installation can be answered with it.
            ActionRefused: the command is answered already, its saga turned back or has ended, or the answer is
                not of its type; the text says which.
            TimeoutError: no engine took it within this time; it stays and will be taken.
        """
        asked = await self._write(lambda c: completion(c, token, answer, reason, by, self._schema))
        await self._ask(*asked, within)
        return asked[0]

    async def ids(self, which: SagaFilter, *, limit: int | None = None) -> Sequence[UUID]:
        """The ids of sagas at this moment, oldest first: a frozen list, to hand to `bulk`."""
        return await self._read(lambda c: ids_of(c, which, limit=limit, schema=self._schema))

    async def scanned(self, which: SagaFilter) -> Sequence[Found]:
        """The paths of `where` for which the states of sagas have to be read, one after the other."""
        return await self._read(lambda c: scanned(c, which, schema=self._schema))

    async def bulk(
        self,
        word: ActionWord,
        ids: Iterable[UUID],
        *,
        reason: str,
        step: str = "",
        by: str = "",
        per_second: float = PER_SECOND,
        within: timedelta = ANSWERED_WITHIN,
    ) -> AsyncIterator[BulkResult]:
        """Ask the same of many sagas, and tell what came of each as it comes.

        When no engine has answered anything for `within`, no more are asked. What was asked stays asked, also when the
        caller stops listening.

        Args:
            word: `cancel`, `retry`, or another of the methods above.
            ids: of whom; each is asked once.
            reason: why; kept with each saga.
            step: as the single form has it.
            by: who asks.
            per_second: at most so many are asked in a second.
            within: so long each is waited for.

        Raises:
            ValueError: a rate that is not above zero; a step, for an action that concerns none.
        """
        asked = action(word, reason=reason, step=step, by=by)
        async for result in self._each(asked, ids, per_second, within):
            yield result

    async def _ask(self, saga_id: UUID, asked: Asked, within: timedelta) -> None:
        [result] = [result async for result in self._each(asked, [saga_id], PER_SECOND, within)]
        if result.error is not None:
            raise result.error

    async def _each(
        self, asked: Asked, ids: Iterable[UUID], per_second: float, within: timedelta
    ) -> AsyncIterator[BulkResult]:
        bulk = Bulk(asked, ids, now=time.monotonic(), per_second=per_second, within=within)
        looks = Looks()
        while not bulk.over:
            results: list[BulkResult] = []
            if due := bulk.due(time.monotonic()):
                results += bulk.asked(await self._write(lambda c: _ask(c, due, asked, self._schema)), time.monotonic())
            answers = await self._read(lambda c: statements.answers_to(c, bulk.out, self._schema))
            results += bulk.answered(answers, time.monotonic())
            for result in results:
                yield result
            if not bulk.over:
                await asyncio.sleep(looks.pause(came=bool(due or results)))


class AsksSagasBlocking(ABC):
    """Ask from threads; each method as in `AsksSagas`."""

    _schema: str | None

    @abstractmethod
    def _read(self, work: Callable[[Connection], T]) -> T:
        """Run this on a connection."""

    @abstractmethod
    def _write(self, work: Callable[[Connection], T]) -> T:
        """Run this in a transaction of its own, and tell the engines."""

    def cancel(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga undone; see `AsksSagas.cancel`."""
        self._ask(saga_id, CancelRequested(reason, by), within)

    def retry(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a blocked saga try again; see `AsksSagas.retry`."""
        self._ask(saga_id, RetryRequested(reason, step, by), within)

    def pause(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga stand still; see `AsksSagas.pause`."""
        self._ask(saga_id, PauseRequested(reason, by), within)

    def resume(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a paused saga go on; see `AsksSagas.resume`."""
        self._ask(saga_id, ResumeRequested(reason, by), within)

    def skip(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Go on without the blocked step; see `AsksSagas.skip`."""
        self._ask(saga_id, SkipRequested(reason, step, by), within)

    def resolve(
        self, saga_id: UUID, *, reason: str, step: str = "", by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Mark the blocked step as done by hand; see `AsksSagas.resolve`."""
        self._ask(saga_id, ResolveRequested(reason, step, by), within)

    def compensate(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Have a saga turn back; see `AsksSagas.compensate`."""
        self._ask(saga_id, CompensateRequested(reason, by), within)

    def abandon(self, saga_id: UUID, *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN) -> None:
        """Give a saga up as it stands; see `AsksSagas.abandon`."""
        self._ask(saga_id, AbandonRequested(reason, by), within)

    def complete(
        self,
        token: str,
        answer: Reply | Failure | Answer = _DONE,
        *,
        reason: str = "",
        by: str = "",
        within: timedelta = ANSWERED_WITHIN,
    ) -> UUID:
        """Answer a command by its reply token; see `AsksSagas.complete`."""
        asked = self._write(lambda c: completion(c, token, answer, reason, by, self._schema))
        self._ask(*asked, within)
        return asked[0]

    def ids(self, which: SagaFilter, *, limit: int | None = None) -> Sequence[UUID]:
        """The ids of sagas at this moment; see `AsksSagas.ids`."""
        return self._read(lambda c: ids_of(c, which, limit=limit, schema=self._schema))

    def scanned(self, which: SagaFilter) -> Sequence[Found]:
        """The paths for which states have to be read; see `AsksSagas.scanned`."""
        return self._read(lambda c: scanned(c, which, schema=self._schema))

    def bulk(
        self,
        word: ActionWord,
        ids: Iterable[UUID],
        *,
        reason: str,
        step: str = "",
        by: str = "",
        per_second: float = PER_SECOND,
        within: timedelta = ANSWERED_WITHIN,
    ) -> Iterator[BulkResult]:
        """Ask the same of many sagas, and tell what came of each as it comes; see `AsksSagas.bulk`."""
        return self._each(action(word, reason=reason, step=step, by=by), ids, per_second, within)

    def _ask(self, saga_id: UUID, asked: Asked, within: timedelta) -> None:
        [result] = self._each(asked, [saga_id], PER_SECOND, within)
        if result.error is not None:
            raise result.error

    def _each(self, asked: Asked, ids: Iterable[UUID], per_second: float, within: timedelta) -> Iterator[BulkResult]:
        bulk = Bulk(asked, ids, now=time.monotonic(), per_second=per_second, within=within)
        looks = Looks()
        while not bulk.over:
            results: list[BulkResult] = []
            if due := bulk.due(time.monotonic()):
                results += bulk.asked(self._write(lambda c: _ask(c, due, asked, self._schema)), time.monotonic())
            answers = self._read(lambda c: statements.answers_to(c, bulk.out, self._schema))
            results += bulk.answered(answers, time.monotonic())
            yield from results
            if not bulk.over:
                time.sleep(looks.pause(came=bool(due or results)))


def _ask(connection: Connection, saga_ids: Sequence[UUID], asked: Asked, schema: str | None) -> dict[UUID, UUID | None]:
    row = signal_to_row(asked)
    assert row is not None
    return statements.ask(connection, saga_ids, *row, schema)
