"""What an action would do is told, and nothing is changed by asking."""

from __future__ import annotations

from orchestrator.instance import SagaStatus
from orchestrator.signals import (
    AbandonRequested,
    CancelRequested,
    CompensateRequested,
    PauseRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.simulating import simulated
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    MINUTE,
    SECOND,
    CreatingOrder,
    Done,
    OrderState,
    ReservingCredit,
    variant,
    with_steps,
)

BLOCKING = variant(ReservingCredit, on_exhausted="block")


def blocked() -> SagaProbe[OrderState]:
    probe = SagaProbe(with_steps(CreatingOrder(), BLOCKING()), OrderState())
    probe.reply(CreatingOrder, Done())
    probe.advance(2 * MINUTE + SECOND)
    assert probe.instance.status is SagaStatus.BLOCKED
    return probe


def test_a_retry_would_send_the_command_again() -> None:
    probe = blocked()
    was = probe.instance

    told = simulated(probe.saga, probe.instance, RetryRequested("now"), now=probe.now)

    assert (told.before, told.after, told.refused) == (SagaStatus.BLOCKED, SagaStatus.RUNNING, "")
    assert told.effects == (f"send reserve-credit to customers ({BLOCKING.__name__}, attempt {told_attempt(probe)})",)
    assert probe.instance is was


def told_attempt(probe: SagaProbe[OrderState]) -> int:
    return max(record.attempt for record in probe.instance.steps.values()) + 1


def test_turning_back_would_undo_what_may_have_happened() -> None:
    probe = blocked()
    told = simulated(probe.saga, probe.instance, CompensateRequested("no"), now=probe.now)
    assert told.after is SagaStatus.COMPENSATING
    assert any(effect.startswith("send ") and "the undo of" in effect for effect in told.effects)


def test_a_skip_would_end_it_and_giving_up_sends_nothing() -> None:
    probe = blocked()
    assert simulated(probe.saga, probe.instance, SkipRequested("no"), now=probe.now).after is SagaStatus.COMPLETED
    told = simulated(probe.saga, probe.instance, AbandonRequested("no"), now=probe.now)
    assert told.after is SagaStatus.ABANDONED
    assert not any(effect.startswith("send") for effect in told.effects)


def test_what_would_be_refused_says_why() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    told = simulated(probe.saga, probe.instance, RetryRequested("no"), now=probe.now)
    assert "not blocked" in told.refused and told.effects == ()
    paused = simulated(probe.saga, probe.instance, PauseRequested("no"), now=probe.now)
    assert paused.effects == ("nothing is sent until it is resumed",)


def test_a_cancel_while_a_command_is_out_awaits_its_answer_first() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    told = simulated(probe.saga, probe.instance, CancelRequested("no"), now=probe.now)
    assert (told.after, told.at) == (SagaStatus.COMPENSATING, "CreatingOrder")
    assert told.effects == ()
