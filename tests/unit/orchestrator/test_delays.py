"""Delays: for a time, or until an instant."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from messaging.messages import Event
from orchestrator import BlockedReason, Delay, Parallel, SagaDefinitionError, SagaStatus
from orchestrator.instance import StepStatus
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    ORDER,
    SECOND,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderPlaced,
    OrderState,
    RejectOrder,
    ReservingCredit,
    Shipping,
    variant,
    with_steps,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
MORNING = NOON - 12 * HOUR


class CoolingOff(Delay[OrderState]):
    def until(self, state: OrderState) -> timedelta:
        return timedelta(seconds=state.amount_cents)

    def events(self, state: OrderState) -> list[Event]:
        return [OrderPlaced(order_id=state.order_id)]


class UntilNoon(Delay[OrderState]):
    def until(self, state: OrderState) -> datetime:
        return NOON.astimezone(timezone(2 * HOUR))


def test_a_delay_lasts_as_long_as_the_state_says() -> None:
    probe = SagaProbe(with_steps(CoolingOff(), CreatingOrder()), OrderState(amount_cents=90))
    assert (probe.current_step, probe.instance.wake_at) == ("CoolingOff", probe.now + 90 * SECOND)

    probe.advance(89 * SECOND)
    assert (probe.step_status(CoolingOff), probe.published) == (StepStatus.WAITING, [])

    probe.advance(SECOND)
    assert (probe.step_status(CoolingOff), probe.published) == (StepStatus.SUCCEEDED, [OrderPlaced(order_id=ORDER)])
    assert probe.sent == [CreateOrder(order_id=ORDER)]


def test_a_delay_until_an_instant_ends_at_that_instant() -> None:
    probe = SagaProbe(with_steps(UntilNoon()), OrderState(), now=MORNING)
    probe.advance(12 * HOUR - SECOND)
    assert probe.status is SagaStatus.RUNNING

    probe.advance(SECOND)
    assert probe.status is SagaStatus.COMPLETED


@pytest.mark.parametrize("late", [NOON, NOON + HOUR])
def test_an_instant_that_has_passed_does_not_delay(late: datetime) -> None:
    assert SagaProbe(with_steps(UntilNoon()), OrderState(), now=late).status is SagaStatus.COMPLETED


@pytest.mark.parametrize("cents", [0, -5])
def test_no_time_at_all_does_not_delay(cents: int) -> None:
    assert SagaProbe(with_steps(CoolingOff()), OrderState(amount_cents=cents)).status is SagaStatus.COMPLETED


def test_a_pause_makes_a_time_longer_but_moves_no_instant() -> None:
    probe = SagaProbe(with_steps(Parallel(CoolingOff(), UntilNoon())), OrderState(amount_cents=3600), now=MORNING)
    probe.pause()
    probe.advance(13 * HOUR)
    probe.resume()
    assert probe.step_status(UntilNoon) is StepStatus.SUCCEEDED

    probe.advance(HOUR - SECOND)
    assert probe.step_status(CoolingOff) is StepStatus.WAITING
    probe.advance(SECOND)
    assert probe.status is SagaStatus.COMPLETED


def test_a_delay_ends_when_the_saga_turns_back() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), CoolingOff()), OrderState())
    probe.reply(CreatingOrder, Done())

    probe.cancel("no longer wanted")

    assert probe.step_status(CoolingOff) is StepStatus.CANCELLED
    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


def test_a_delay_that_is_over_needs_no_undo() -> None:
    probe = SagaProbe(with_steps(CreatingOrder(), CoolingOff(), ReservingCredit()), OrderState(amount_cents=1))
    probe.reply(CreatingOrder, Done())
    probe.advance(SECOND)
    probe.cancel("no longer wanted")
    probe.advance(MINUTE)

    assert probe.step_status(CoolingOff) is StepStatus.SUCCEEDED
    assert probe.status is SagaStatus.COMPENSATING


def test_delays_may_stand_after_the_pivot() -> None:
    probe = SagaProbe(with_steps(Shipping(), CoolingOff()), OrderState(amount_cents=1))
    probe.reply(Shipping, Done())
    probe.advance(SECOND)

    assert probe.status is SagaStatus.COMPLETED


@pytest.mark.parametrize("value", [datetime(2030, 1, 1), 5, None, timedelta.max])  # noqa: DTZ001
def test_what_is_no_time_and_no_aware_instant_blocks_by_code_error(value: Any) -> None:
    delay = variant(CoolingOff, until=lambda self, state: value)

    probe = SagaProbe(with_steps(delay()), OrderState())

    assert probe.blocked_reason is BlockedReason.CODE_ERROR


def test_the_fingerprint_tells_that_a_step_is_a_delay_but_not_how_long() -> None:
    longer = variant(CoolingOff, until=lambda self, state: HOUR)

    plan = with_steps(CoolingOff()).plan
    assert plan.fingerprint == with_steps(longer()).plan.fingerprint
    assert plan.fingerprint != with_steps(CreatingOrder()).plan.fingerprint


def test_an_async_hook_of_a_delay_is_refused() -> None:
    async def until(self: object, state: OrderState) -> timedelta:
        return HOUR

    with pytest.raises(SagaDefinitionError, match="async until"):
        type("Later", (CoolingOff,), {"until": until})


def test_a_delay_that_does_not_say_its_state_is_refused() -> None:
    class Later(Delay):  # type: ignore[type-arg]
        def until(self, state: OrderState) -> timedelta:
            return HOUR

    with pytest.raises(SagaDefinitionError, match=r"Write class Later\(Delay\[OrderState\]\)"):
        with_steps(Later())
