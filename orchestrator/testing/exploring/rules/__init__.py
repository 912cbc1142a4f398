"""What must hold whatever happens: the rules of `docs/semantics.md`, told of one transition or one world.

They look at rows, at messages and at what participants and functions have done, never at how the core decided; so a
mistake in the core, in the engine or in a definition is seen by what comes of it.
"""

from __future__ import annotations

from typing import Final

from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.testing.exploring.actions import Action, Outcome
from orchestrator.testing.exploring.family import FIRST, Family
from orchestrator.testing.exploring.looks import waits_for_children
from orchestrator.testing.exploring.rules import attempts, children, happening, undoing, working
from orchestrator.testing.exploring.rules.change import Change, Rule
from orchestrator.testing.exploring.world import World

__all__ = ["Change", "at_rest", "broken", "ending"]


def broken(family: Family, before: World, action: Action, outcome: Outcome) -> str:
    """The first rule that an action breaks, in words; empty if none."""
    first = Change(family, before, action, outcome)
    rows_changed = before.tables is not outcome.world.tables
    if problem := _first(first, OF_ALL if rows_changed else OF_ALL_PARTICIPANTS):
        return problem
    rules = OF_EACH if rows_changed else OF_PARTICIPANTS
    for seat in outcome.world.sagas:
        if problem := _first(Change(family, before, action, outcome, seat), rules):
            return problem if seat == FIRST else f"{family.definition(seat).__name__}: {problem}"
    return _first(first, OF_ALL_PARTICIPANTS) if rows_changed else ""


def _first(change: Change, rules: tuple[Rule, ...]) -> str:
    return next((text for rule in rules for text in rule(change)), "")


def at_rest(world: World) -> str:
    """What is wrong with a world in which nothing can happen any more; empty if nothing is."""
    for saga in world.sagas.values():
        waits = waits_for_children(saga) and _has_live_child(world, saga)
        if not (saga.status.terminal or saga.status is SagaStatus.BLOCKED or waits):
            at = saga.current_step or "no step"
            return f"nothing can happen any more, and {_named(saga)} is {saga.status} at {at}"
    return ""


def ending(world: World) -> str:
    """How it has ended: the first saga's status, or that of the child for which it waits."""
    first = world.saga
    waits = not first.status.terminal and first.blocked_reason is None
    saga = next((one for one in world.sagas.values() if waits and one.blocked_reason), first)
    why = f"{saga.status}: {saga.blocked_reason}" if saga.blocked_reason else str(saga.status)
    return why if saga is first else f"{saga.pin.name} {why}"


def _has_live_child(world: World, saga: SagaInstance) -> bool:
    awaited = {record.awaited_key for record in saga.steps.values() if record.status.open}
    return any(str(one.id) in awaited and not one.status.terminal for one in world.sagas.values())


def _named(saga: SagaInstance) -> str:
    return "the saga" if saga.parent is None else saga.pin.name


OF_ALL_PARTICIPANTS: Final[tuple[Rule, ...]] = (working.it_moves_on, happening.done_once)
"""Those that may break while no row changes; asked once."""
OF_PARTICIPANTS: Final[tuple[Rule, ...]] = (
    happening.compensated_when_all_is_undone,
    happening.completed_when_all_is_done,
)
"""Likewise, asked of each saga."""
OF_ALL: Final[tuple[Rule, ...]] = (
    working.the_engine_works,
    working.acked_after_the_commit,
    working.all_or_nothing,
    working.one_id_for_one_attempt,
)
"""Asked of the engine; the others then of each saga."""
OF_EACH: Final[tuple[Rule, ...]] = (
    working.nothing_after_the_end,
    working.what_is_locked_is_let_go,
    working.the_status_follows_the_table,
    working.no_hook_raises,
    working.it_wakes_unless_it_rests,
    attempts.an_attempt_has_a_reason,
    attempts.no_more_attempts_than_allowed,
    attempts.what_never_left_does_not_time_out,
    attempts.an_answer_is_taken,
    attempts.an_answer_counts_once,
    attempts.an_event_that_came_is_taken,
    undoing.nothing_new_while_going_back,
    undoing.undo_waits_for_do,
    undoing.undo_only_what_may_have_happened,
    undoing.no_way_back_after_the_pivot,
    undoing.undo_goes_backwards,
    children.one_child_for_one_attempt,
    children.parents_know_their_children,
    children.an_undone_child_had_completed,
    children.a_completed_child_goes_back_by_order,
    children.a_child_out_of_use_is_cancelled,
    children.parents_end_after_their_children,
    happening.a_local_step_writes_with_its_saga,
    *OF_PARTICIPANTS,
)
