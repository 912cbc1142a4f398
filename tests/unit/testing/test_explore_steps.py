"""`explore` looks at local steps, child sagas and answers by reply tokens through the real engine."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from messaging.messages import Accepted, Failure
from orchestrator import LocalStep, Parallel, Saga, SagaStatus, SubSaga
from orchestrator.instance import StepStatus
from orchestrator.testing import NotExplorable, RuleBroken, Seen, explore, replay
from tests.unit.orchestrator.orders import (
    CreatingOrder,
    Done,
    OrderState,
    ReservingCredit,
)
from tests.unit.testing import planted, planted_steps

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


class NoNumbersLeft(Failure):
    pass


class Counting(LocalStep[OrderState]):
    async def run(self, state: OrderState, session: AsyncSession) -> NoNumbersLeft | None:
        state.log = [*state.log, "counted"]
        return None

    async def undo(self, state: OrderState, session: AsyncSession) -> None:
        state.log = [*state.log, "uncounted"]


class WithALocalStep(Saga[OrderState]):
    steps = (Counting(), CreatingOrder())


class Child(Saga[OrderState]):
    steps = (CreatingOrder(),)


class HavingItCreated(SubSaga[OrderState, OrderState]):
    saga = Child
    timeout = timedelta(seconds=30)

    def child_state(self, state: OrderState) -> OrderState:
        return OrderState(order_id=state.order_id)


class WithAChild(Saga[OrderState]):
    steps = (HavingItCreated(), ReservingCredit())


class Accepting(Saga[OrderState]):
    steps = (ReservingCredit(),)


class AcceptingFirst(Saga[OrderState]):
    steps = (ReservingCredit(), CreatingOrder())


PATIENCE = 900
"""However slow the machine is."""
BY_TOKEN: Any = {ReservingCredit: [Accepted(within=timedelta(hours=1)), Done(), Failure(reason="no")]}
"""Somebody decides within an hour."""

FINDS: list[tuple[planted.Plant, type[Saga[OrderState]], str]] = [
    (planted_steps.runs_a_local_step_apart_from_its_saga, WithALocalStep, "committed 1 times, and the saga knows of 0"),
    (planted_steps.takes_the_undo_of_a_local_step_for_done, WithALocalStep, "committed 1 times, and the saga knows"),
    (planted_steps.never_runs_again_what_was_lost_with_its_process, WithALocalStep, "goes on for ever"),
    (planted.undoes_what_was_refused, WithALocalStep, "Counting is undone though it is refused"),
    (planted.undoes_what_was_refused, WithAChild, "is undone though it is refused"),
    (planted.ends_without_waiting_for_undos, WithAChild, "the undo of HavingItCreated is still waiting"),
    (planted_steps.starts_another_child_when_the_time_of_one_is_up, WithAChild, "while another one of it goes on"),
    (planted_steps.draws_the_ids_of_children, WithAChild, "under an id that is not its attempt's"),
    (planted_steps.does_not_tell_its_child_that_it_turns_back, WithAChild, "which nobody has told"),
    (planted_steps.takes_a_child_that_is_ordered_back_for_undone, WithAChild, "is undone, and its child is completed"),
    (planted_steps.takes_a_compensated_child_for_completed, WithAChild, "is succeeded, and its child is compensated"),
    (planted_steps.counts_the_second_answer_by_a_token_too, AcceptingFirst, "were redeemed at once, and all"),
    (planted_steps.tells_whoever_redeems_a_token_that_it_counts, Accepting, "has happened and is not undone"),
    (planted_steps.takes_accepted_for_done, Accepting, "the saga completed, but ReservingCredit has not happened"),
    (planted.forgets_the_undo_of_what_timed_out, Accepting, "was accepted and nobody has called it off"),
]


@pytest.mark.parametrize(
    ("plant", "saga", "rule"), FINDS, ids=[f"{plant.__name__}-{saga.__name__}" for plant, saga, _ in FINDS]
)
def test_a_planted_mistake_is_found_and_its_story_replays_it(
    plant: planted.Plant, saga: type[Saga[OrderState]], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = BY_TOKEN if saga in (Accepting, AcceptingFirst) else None
    plant(monkeypatch)
    with pytest.raises(RuleBroken) as found:
        explore(saga, OrderState(), answers=answers, max_seconds=PATIENCE)
    assert rule in found.value.rule

    with pytest.raises(RuleBroken) as again:
        replay(saga, OrderState(), found.value.story, answers=answers)
    assert rule in again.value.rule

    monkeypatch.undo()
    replay(saga, OrderState(), found.value.story, answers=answers)


# -- what is right


def counted_as_the_state_says(seen: Seen[OrderState]) -> None:
    assert seen.in_effect(Counting) == (seen.state.log.count("counted") > seen.state.log.count("uncounted"))


def test_a_local_step_ends_in_every_way_and_its_state_fits_what_it_wrote() -> None:
    report = explore(WithALocalStep, OrderState(), invariants=[counted_as_the_state_says], max_seconds=PATIENCE)
    assert report.complete
    assert set(report.ends) == {"completed", "compensated", "blocked: compensation_failed"}


def credit_is_taken_for_orders_that_exist(seen: Seen[OrderState]) -> None:
    children = seen.children(HavingItCreated)
    assert len(children) <= 1
    if seen.in_effect(ReservingCredit) and seen.status is SagaStatus.RUNNING:
        assert children[0].in_effect(CreatingOrder)
    if seen.status is SagaStatus.COMPENSATED:
        assert not any(child.in_effect(CreatingOrder) for child in children)


def test_a_child_ends_in_every_way_and_goes_back_with_its_parent() -> None:
    checks = [credit_is_taken_for_orders_that_exist]
    report = explore(WithAChild, OrderState(), invariants=checks, max_seconds=PATIENCE)
    assert report.complete
    assert set(report.ends) == {"completed", "compensated", "child blocked: compensation_failed"}


class HavingAnotherCreated(HavingItCreated):
    pass


class SideBySide(Saga[OrderState]):
    steps = (Parallel(HavingItCreated(), HavingAnotherCreated()),)


def test_two_children_of_one_kind_go_side_by_side() -> None:
    assert explore(SideBySide, OrderState(), max_faults=0).complete


def taken_once_it_is_answered(seen: Seen[OrderState]) -> None:
    assert not seen.in_effect(ReservingCredit) or seen.step_status(ReservingCredit) is not StepStatus.REFUSED


def test_a_token_is_redeemed_at_once_late_never_and_twice() -> None:
    checks = [taken_once_it_is_answered]
    report = explore(Accepting, OrderState(), answers=BY_TOKEN, invariants=checks, max_seconds=PATIENCE)
    assert report.complete
    assert set(report.ends) == {"completed", "compensated"}


class Writing(Counting):
    async def run(self, state: OrderState, session: AsyncSession) -> NoNumbersLeft | None:
        session.add(object())
        return None


class WithWriting(Saga[OrderState]):
    steps = (Writing(),)


def numbered(state: OrderState) -> None:
    state.warehouse = "17"


def no_numbers_left(state: OrderState) -> NoNumbersLeft:
    return NoNumbersLeft(reason="all are taken")


def numbered_once_it_is_written(seen: Seen[OrderState]) -> None:
    assert seen.in_effect(Writing) == (seen.state.warehouse == "17")


def test_a_local_step_that_uses_its_session_is_given_what_it_does_to_the_state() -> None:
    with pytest.raises(NotExplorable, match=r"Writing of WithWriting uses its session \(session.add\).*functions="):
        explore(WithWriting, OrderState())

    functions = {Writing: [numbered, no_numbers_left]}
    checks = [numbered_once_it_is_written]
    report = explore(WithWriting, OrderState(), functions=functions, invariants=checks)
    assert set(report.ends) == {"completed", "compensated"}
