"""Runs the functions of local steps: each with its saga alone, in one transaction, a few at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias
from uuid import UUID

from pydantic import BaseModel

from messaging import failpoints
from messaging.codec import encode_body
from messaging.logged import about, trace_id_of
from messaging.messages import Failure
from messaging.printable import error_text
from orchestrator.definition import Saga
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepStatus
from orchestrator.plan import LocalLeaf
from orchestrator.signals import LocalFailed, LocalFinished
from orchestrator.store import StoreTransaction

logger = logging.getLogger(__name__)

Due: TypeAlias = tuple[UUID, StepKey]
"""A local step whose function is to be run."""
_AT_ONCE: Final = 4


class Refused(Exception):
    """A function returned a failure; raised, so that all it wrote is rolled back."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.reason)


@dataclass(frozen=True, slots=True)
class LocalJob:
    """A function that is due, with the copy of the state it works on."""

    leaf: LocalLeaf
    key: StepKey
    attempt: int
    state: str
    state_type: type[BaseModel]
    trace: str

    async def run(self, tx: StoreTransaction) -> LocalFinished:
        """Run it in this transaction, which must be rolled back if it raises.

        Raises:
            Refused: it returned a failure.
            Exception: whatever it raises, or the database for it, or TimeoutError.
        """
        step, state = self.leaf.step, self.state_type.model_validate_json(self.state)
        function = step.run if self.key.direction is Direction.ACTION else step.undo
        async with tx.session(timeout=step.timeout) as session:
            with about(attempt=str(self.attempt), trace_id=trace_id_of(self.trace)):
                failure = await function(state, session)
            if failure is not None:
                raise Refused(failure)
        failpoints.reached("engine.local_ran")
        return LocalFinished(self.key, self.attempt, encode_body(state).decode())

    def failed(self, error: Exception) -> LocalFailed:
        """What to tell the saga once all is rolled back."""
        if isinstance(error, Refused):
            return LocalFailed(self.key, self.attempt, error.failure)
        late = f"{type(error).__name__}: took longer than {self.leaf.step.timeout.total_seconds():g} s"
        return LocalFailed(self.key, self.attempt, error=late if _timed_out(error) else error_text(error))


def _timed_out(error: Exception) -> bool:
    return isinstance(error, TimeoutError) and not str(error)


def job_of(saga: Saga[BaseModel] | None, instance: SagaInstance | None, key: StepKey) -> LocalJob | None:
    """The function to be run for a row, if it still is."""
    if saga is None or instance is None or instance.paused_at or instance.status is SagaStatus.BLOCKED:
        return None  # a deadline of its own lets it run when the saga goes on
    record, leaf = instance.steps.get(key), saga.plan.leaves.get(key.step)
    if record is None or record.status is not StepStatus.WAITING or not isinstance(leaf, LocalLeaf):
        return None
    return LocalJob(leaf, key, record.attempt, instance.state, saga.state_type, instance.trace)


class LocalRunner:
    """Takes local steps that are due, and runs them beside the engine's loop.

    Args:
        run: runs one, in transactions of its own. What it raises is logged: the row is due again in a while.
        at_once: how many at the same time; each has a connection.
    """

    def __init__(self, run: Callable[[UUID, StepKey], Awaitable[None]], *, at_once: int = _AT_ONCE) -> None:
        self._run, self._room = run, asyncio.Semaphore(at_once)
        self._tasks: dict[Due, asyncio.Task[None]] = {}

    def take(self, due: Iterable[Due]) -> None:
        """Run these soon, unless they are in hand already."""
        for one in due:
            if one not in self._tasks:
                task = self._tasks[one] = asyncio.create_task(self._one(one), name=f"local step {one[1].step}")
                task.add_done_callback(lambda _, one=one: self._tasks.pop(one, None))  # type: ignore[misc]

    async def _one(self, due: Due) -> None:
        async with self._room:
            with about(saga_id=str(due[0]), saga_step=due[1].step):
                try:
                    await self._run(*due)
                except Exception as error:  # noqa: BLE001 - the database is away; the row is found when it is back
                    logger.warning("Step %s of saga %s could not be run: %s", due[1].step, due[0], error)

    async def stop(self, timeout: timedelta) -> None:
        """Let what is in hand finish, for as long as this; the rest is rolled back."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=timeout.total_seconds())
        left = list(self._tasks.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
