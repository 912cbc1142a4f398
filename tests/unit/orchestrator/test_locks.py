"""Locks in the core: a step waits for what it names before it begins, and lets go of it when it may."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from messaging.retry import Retry
from orchestrator import (
    BlockedReason,
    Delay,
    ForEach,
    ItemStep,
    Parallel,
    SagaDefinitionError,
    SagaStatus,
    WaitForEvent,
)
from orchestrator.instance import StepKey, StepStatus
from orchestrator.signals import LocksAsked, LocksDenied, LocksGranted, Started
from orchestrator.start import new_instance
from orchestrator.testing import SagaProbe
from orchestrator.testing.harness import START
from orchestrator.transitions import decide
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    CreateOrder,
    CreatingOrder,
    Done,
    Mailing,
    OrderState,
    Refused,
    RejectOrder,
    ReservingCredit,
    ReservingStock,
    Shipping,
    StockReserved,
    variant,
    with_steps,
)


class OrderLocked(CreatingOrder):
    name = "CreatingOrder"
    lock_timeout = HOUR

    def locks(self, state: OrderState) -> list[str]:
        return [f"order:{state.order_id}", "ledger", "ledger"]


def locked(**settings: Any) -> Any:
    return variant(OrderLocked, name="CreatingOrder", **settings)()


def waiting(*more: Any, **settings: Any) -> SagaProbe[OrderState]:
    """A saga whose first step waits for the ledger, which another saga has."""
    probe = SagaProbe(with_steps(ReservingStock(), locked(**settings), *more), OrderState())
    probe.taken.add("ledger")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    return probe


def row(probe: SagaProbe[OrderState]) -> StepStatus | None:
    return probe.step_status(CreatingOrder)


def test_what_is_free_is_granted_and_the_step_begins() -> None:
    probe = SagaProbe(with_steps(locked()), OrderState())

    assert [type(command) for command in probe.sent] == [CreateOrder]
    probe.reply(CreatingOrder, Done())
    assert probe.status is SagaStatus.COMPLETED


def test_a_step_sends_nothing_before_it_has_all_it_names() -> None:
    probe = waiting()
    assert (probe.just_sent, probe.current_step, row(probe)) == ([], "CreatingOrder", StepStatus.WAITING)

    probe.freed("ledger")

    assert [type(command) for command in probe.just_sent] == [CreateOrder]
    assert row(probe) is StepStatus.OUTSTANDING


def test_its_timeout_counts_from_when_it_begins() -> None:
    probe = waiting()
    probe.advance(30 * MINUTE)
    probe.freed("ledger")

    record = probe.instance.steps[StepKey("CreatingOrder")]
    assert record.deadline == probe.now + CreatingOrder.timeout


def test_while_it_waits_it_is_looked_at_every_hour_at_least() -> None:
    probe = waiting(lock_timeout=timedelta(days=2))

    assert probe.instance.wake_at == probe.now + HOUR


def test_who_waits_in_vain_has_not_happened_and_the_saga_turns_back() -> None:
    probe = waiting()

    probe.advance(HOUR)

    cause = probe.first_cause
    assert cause is not None and (cause.step, cause.code) == ("CreatingOrder", "lock-timeout")
    assert not any(isinstance(command, RejectOrder) for command in probe.sent)
    probe.compensated(ReservingStock)
    assert probe.status is SagaStatus.COMPENSATED


def test_who_would_wait_in_a_circle_fails_with_that_code() -> None:
    probe = waiting()

    probe.deadlocked(OrderLocked)

    assert probe.first_cause is not None and probe.first_cause.code == "lock-deadlock"


def test_who_would_not_wait_fails_at_once() -> None:
    probe = waiting(on_locked="fail", lock_timeout=None)

    assert probe.first_cause is not None and probe.first_cause.code == "locked"


def test_a_cancel_ends_the_wait_at_once() -> None:
    probe = waiting()

    probe.cancel("no longer wanted")

    assert row(probe) is StepStatus.CANCELLED
    probe.freed("ledger")
    assert not any(isinstance(command, CreateOrder) for command in probe.sent)


def test_a_branch_that_fails_ends_the_wait_of_another() -> None:
    probe = beside_credit()

    probe.reply(ReservingCredit, Refused(reason="limit reached"))

    assert row(probe) is StepStatus.CANCELLED
    assert probe.status is SagaStatus.COMPENSATING


def beside_credit(**settings: Any) -> SagaProbe[OrderState]:
    """A branch that waits for the ledger, beside one that has sent its command."""
    credit = variant(ReservingCredit, **settings)
    saga = with_steps(ReservingStock(), Parallel(credit(), locked()))
    probe = SagaProbe(saga, OrderState())
    probe.taken.add("ledger")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    return probe


def test_what_is_granted_while_the_saga_is_paused_begins_when_it_is_resumed() -> None:
    probe = waiting()
    probe.pause()
    probe.freed("ledger")
    assert probe.just_sent == []

    probe.resume()

    assert [type(command) for command in probe.just_sent] == [CreateOrder]


def test_the_time_to_wait_stands_still_while_the_saga_is_paused() -> None:
    probe = waiting()
    probe.pause()
    probe.advance(3 * HOUR)
    probe.resume()

    probe.advance(HOUR - MINUTE)
    assert row(probe) is StepStatus.WAITING


def test_what_is_granted_while_another_branch_blocks_begins_when_the_saga_goes_on() -> None:
    probe = beside_credit(on_exhausted="block", retry=Retry(max_attempts=1))
    probe.advance(MINUTE)
    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED

    probe.freed("ledger")
    assert (probe.just_sent, row(probe)) == ([], StepStatus.WAITING)
    probe.skip()

    assert [type(command) for command in probe.just_sent] == [CreateOrder]


def test_a_cancel_is_taken_while_the_pivot_waits_for_its_locks() -> None:
    pivot = variant(Shipping, lock_timeout=HOUR, locks=OrderLocked.locks)
    probe = SagaProbe(with_steps(ReservingStock(), pivot(), Mailing()), OrderState())
    probe.taken.add("ledger")
    probe.reply(ReservingStock, StockReserved(warehouse="north"))
    assert probe.current_step == "Shipping"

    probe.cancel("no longer wanted")
    probe.compensated(ReservingStock)

    assert probe.status is SagaStatus.COMPENSATED


def test_an_answer_that_comes_twice_or_late_changes_nothing() -> None:
    probe = waiting()
    probe.freed("ledger")

    for answer in (LocksGranted("CreatingOrder"), LocksDenied("CreatingOrder", "locked", "")):
        decision = decide(probe.saga, probe.instance, answer, now=probe.now)
        assert not decision.accepted
        assert decision.steps == probe.instance.steps


def test_what_a_step_names_is_asked_for_once_each_and_in_order() -> None:
    saga = with_steps(locked())
    new = new_instance(saga, OrderState(), None, "", START)

    decision = decide(saga(), new, Started(), now=START)

    assert decision.locks == (LocksAsked("CreatingOrder", ("ledger", f"order:{OrderState().order_id}"), waits=True),)


@pytest.mark.parametrize("named", [[""], ["x" * 256], [7], ["a\0b"]])
def test_what_is_no_name_blocks_by_code_error(named: list[Any]) -> None:
    probe = SagaProbe(with_steps(locked(locks=lambda self, state: named)), OrderState())

    assert probe.blocked_reason is BlockedReason.CODE_ERROR


def test_a_step_that_names_nothing_this_time_begins_at_once() -> None:
    probe = SagaProbe(with_steps(locked(locks=lambda self, state: [])), OrderState())

    assert [type(command) for command in probe.sent] == [CreateOrder]


# -- definitions


def test_a_wait_for_locks_without_end_is_refused() -> None:
    with pytest.raises(SagaDefinitionError, match=r"would wait for them without end\. Set lock_timeout"):
        locked(lock_timeout=None)


def test_locks_after_the_pivot_are_refused() -> None:
    mailing = variant(Mailing, lock_timeout=HOUR, locks=OrderLocked.locks)

    with pytest.raises(SagaDefinitionError, match="comes after the pivot Shipping and names locks"):
        with_steps(Shipping(), mailing())


@pytest.mark.parametrize("kind", [ItemStep, ForEach, WaitForEvent, Delay])
def test_locks_of_what_cannot_hold_any_are_refused(kind: type[Any]) -> None:
    with pytest.raises(
        SagaDefinitionError, match=r"has locks, but a Step, .* alone holds locks\. Name them in one before"
    ):
        type("Locking", (kind,), {"locks": OrderLocked.locks})


def test_an_unknown_word_for_what_to_do_when_locked_is_refused() -> None:
    with pytest.raises(SagaDefinitionError, match=r"has on_locked = 'sleep'\. Use one of: wait, fail"):
        locked(on_locked="sleep")
