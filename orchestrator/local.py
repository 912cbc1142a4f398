"""Local steps in the core: what follows when a function of the author's has run, has refused, or has raised.

Who runs it holds the saga's row meanwhile, so a function has either not begun or is committed: what is
cancelled has not happened, and nothing about a local step is ever unknown.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from messaging.retry import Again, next_attempt
from orchestrator.draft import Draft
from orchestrator.instance import Direction, StepRecord, StepStatus
from orchestrator.plan import LocalLeaf, overrides
from orchestrator.progress import publish_events
from orchestrator.signals import LocalEnded, LocalFailed, LocalFinished
from orchestrator.steps import LocalStep
from orchestrator.tree import RAISED

_AT_ONCE: Final = timedelta(0)


def local_ended(draft: Draft, ended: LocalEnded) -> None:
    """Take what became of a local step's function, unless the step is over, or tried again, by now."""
    record, leaf = draft.steps.get(ended.key), draft.plan.leaves.get(ended.key.step)
    awaited = record is not None and (record.status, record.attempt) == (StepStatus.WAITING, ended.attempt)
    if record is None or not isinstance(leaf, LocalLeaf) or not awaited:
        draft.accepted = False
    elif isinstance(ended, LocalFinished):
        draft.know(ended.state, ended.key, "run" if ended.key.direction is Direction.ACTION else "undo")
        draft.end(record, StepStatus.SUCCEEDED)
        if ended.key.direction is Direction.ACTION:
            publish_events(draft, leaf)
    else:
        _failed(draft, leaf, record, ended)


def begin_again(draft: Draft, record: StepRecord, *, after: timedelta = _AT_ONCE, tries: int = 1) -> None:
    """Have a function that did not happen run once more."""
    draft.change(
        record,
        status=StepStatus.WAITING,
        round=record.round + 1,
        attempt=record.attempt + 1,
        tries=tries,
        deadline=draft.now + after,
        ended_at=None,
    )


def _failed(draft: Draft, leaf: LocalLeaf, record: StepRecord, ended: LocalFailed) -> None:
    """Try again by the policy, if it raised, or must succeed in the end; else it is refused."""
    action, failure = record.key.direction is Direction.ACTION, ended.failure
    draft.note("refused" if failure else "raised", failure.reason if failure else ended.error, leaf.name)
    code, text = (failure.error_code, failure.reason) if failure else (RAISED, ended.error)
    draft.end(record, StepStatus.REFUSED, code, text)
    if failure and action and overrides(type(leaf.step), LocalStep, "on_failure"):
        draft.tell(leaf.name, leaf.step.on_failure, failure)
    policy = leaf.step.retry if action else leaf.step.compensation_retry
    verdict = next_attempt(policy, record.tries, seed=f"{draft.was.id}/{leaf.name}")
    if isinstance(verdict, Again) and (failure is None or leaf.step.retriable or not action):
        begin_again(draft, draft.steps[record.key], after=verdict.after, tries=record.tries + 1)
