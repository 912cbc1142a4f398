"""Mistakes to be found about local steps, child sagas and answers by reply tokens, one line of the core each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast
from uuid import uuid4

import pytest

from messaging.envelope import ACCEPTED, SUCCESS
from orchestrator import batch, children, progress, transitions
from orchestrator.definition import Saga
from orchestrator.draft import Draft
from orchestrator.engine import Engine
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepRecord, StepStatus
from orchestrator.plan import ChildLeaf
from orchestrator.signals import ChildEnded, CompleteRequested, Decision, Incoming, ReplyReceived
from orchestrator.transitions import decide

Told = Callable[[Incoming], Incoming]


def _tells(patch: pytest.MonkeyPatch, changed: Told) -> None:
    """Have sagas told something else than what came."""

    def confused(saga: Saga[Any], saga_row: SagaInstance, incoming: Incoming, **now: Any) -> Decision:
        return decide(saga, saga_row, changed(incoming), **now)

    patch.setattr(batch, "decide", confused)


# -- local steps


def runs_a_local_step_apart_from_its_saga(patch: pytest.MonkeyPatch) -> None:
    together = Engine.run_local

    async def apart(engine: Engine, saga_id: Any, key: StepKey) -> None:
        inside = vars(engine)["_store"].transaction
        job_of, new_batch = cast("Any", engine)._job, cast("Any", engine)._batch
        try:
            async with inside() as tx:
                job = job_of(new_batch(await tx.lock([saga_id])), saga_id, key)
                finished = None if job is None else await job.run(tx)
        except Exception:  # noqa: BLE001 - as the engine does
            await together(engine, saga_id, key)
            return

        async def decided(tx: Any) -> batch.Batch:
            found: batch.Batch = new_batch(await tx.lock([saga_id]))
            if finished is not None:
                found.tell(saga_id, finished)
            return found

        await cast("Any", engine)._run(decided, alone=True)

    patch.setattr(Engine, "run_local", apart)


def takes_the_undo_of_a_local_step_for_done(patch: pytest.MonkeyPatch) -> None:
    begin = Draft.begin_local

    def hasty(draft: Draft, key: StepKey) -> None:
        if key.direction is Direction.COMPENSATION:
            draft.add(key, StepStatus.SUCCEEDED)
        else:
            begin(draft, key)

    patch.setattr(Draft, "begin_local", hasty)


def never_runs_again_what_was_lost_with_its_process(patch: pytest.MonkeyPatch) -> None:
    later = Draft.run_local

    def forgetful(draft: Draft, record: StepRecord) -> None:
        later(draft, record)
        draft.local.clear()

    patch.setattr(Draft, "run_local", forgetful)


# -- children


def starts_another_child_when_the_time_of_one_is_up(patch: pytest.MonkeyPatch) -> None:
    def again(draft: Draft, record: StepRecord, *why: str) -> None:
        children.begin_another_child(draft, cast("ChildLeaf", draft.leaf(record.key.step)), record)

    patch.setattr(transitions, "cancel_child", again)


def draws_the_ids_of_children(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(children, "child_id", lambda *attempt: uuid4())


def does_not_tell_its_child_that_it_turns_back(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(progress, "cancel_child", lambda draft, record, *why: draft.change(record, deadline=None))


def takes_a_child_that_is_ordered_back_for_undone(patch: pytest.MonkeyPatch) -> None:
    def hasty(draft: Draft, key: StepKey, action: StepRecord) -> None:
        draft.add(key, StepStatus.SUCCEEDED, awaited_key=action.awaited_key)

    patch.setattr(progress, "begin_undoing_child", hasty)


def takes_a_compensated_child_for_completed(patch: pytest.MonkeyPatch) -> None:
    def completed(incoming: Incoming) -> Incoming:
        failed = isinstance(incoming, ChildEnded) and incoming.status is SagaStatus.COMPENSATED
        return replace(cast("ChildEnded", incoming), status=SagaStatus.COMPLETED) if failed else incoming

    _tells(patch, completed)


# -- reply tokens


def counts_the_second_answer_by_a_token_too(patch: pytest.MonkeyPatch) -> None:
    complete = cast("Callable[[Draft, CompleteRequested], None]", vars(transitions)["_complete"])

    def forgetful(draft: Draft, asked: CompleteRequested) -> None:
        record = draft.steps[asked.reply.key]
        if record.status is StepStatus.SUCCEEDED:
            draft.change(record, status=StepStatus.OUTSTANDING)
        complete(draft, asked)

    patch.setattr(transitions, "_complete", forgetful)


def tells_whoever_redeems_a_token_that_it_counts(patch: pytest.MonkeyPatch) -> None:
    def agreeable(draft: Draft, asked: CompleteRequested) -> None:
        vars(transitions)["_reply"](draft, asked.reply)

    patch.setattr(transitions, "_complete", agreeable)


def takes_accepted_for_done(patch: pytest.MonkeyPatch) -> None:
    def done(incoming: Incoming) -> Incoming:
        accepted = isinstance(incoming, ReplyReceived) and incoming.outcome == ACCEPTED
        return replace(cast("ReplyReceived", incoming), outcome=SUCCESS, body="{}") if accepted else incoming

    _tells(patch, done)
