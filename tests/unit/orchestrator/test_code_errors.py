"""A hook that raises blocks the saga, changes nothing, and after a fix the saga goes on as if it had not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import field_validator

from messaging.messages import Command, Event, Failure
from orchestrator import BlockedReason, SagaStatus, Step
from orchestrator.instance import SagaInstance
from orchestrator.testing import SagaProbe
from tests.unit.orchestrator.orders import (
    HOUR,
    ORDER,
    AwaitingPayment,
    CreateOrder,
    CreatingOrder,
    Done,
    OrderPlaced,
    OrderState,
    PackingGift,
    PaymentCaptured,
    Refused,
    RejectOrder,
    ReserveCredit,
    ReservingCredit,
    ReservingStock,
    StockReserved,
    variant,
    with_steps,
)

Probe = SagaProbe[OrderState]
GIFT = OrderState(gift=True)


class Switch:
    """Wraps a hook so that it raises until it is mended."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        self.hook, self.broken = hook, True

    def wrapped(self) -> Callable[..., Any]:
        def hook(*args: Any) -> Any:
            if self.broken:
                raise KeyError("customer_id")
            return self.hook(*args)

        hook.__name__, hook.__annotations__ = self.hook.__name__, self.hook.__annotations__
        hook.__wrapped__ = self.hook  # type: ignore[attr-defined]
        return hook


def create(probe: Probe) -> None:
    probe.reply(CreatingOrder, Done())


def reply_stock(probe: Probe) -> None:
    create(probe)
    probe.reply(ReservingStock, StockReserved(warehouse="north"))


def refuse_credit(probe: Probe) -> None:
    create(probe)
    probe.reply(ReservingCredit, Refused(reason="limit"))


def reply_credit(probe: Probe) -> None:
    create(probe)
    probe.reply(ReservingCredit, Done())


def pay(probe: Probe) -> None:
    create(probe)
    probe.event(AwaitingPayment, PaymentCaptured(order_id=ORDER))


def expire(probe: Probe) -> None:
    create(probe)
    probe.advance(HOUR)


HOOKS: list[tuple[type[Any], str, Callable[[Probe], None], SagaStatus]] = [
    (PackingGift, "when", create, SagaStatus.RUNNING),
    (ReservingCredit, "command", create, SagaStatus.RUNNING),
    (ReservingStock, "on_reply", reply_stock, SagaStatus.COMPLETED),
    (ReservingCredit, "on_failure", refuse_credit, SagaStatus.COMPENSATING),
    (ReservingCredit, "events", reply_credit, SagaStatus.COMPLETED),
    (AwaitingPayment, "awaited_key", create, SagaStatus.RUNNING),
    (AwaitingPayment, "on_event", pay, SagaStatus.COMPLETED),
    (AwaitingPayment, "on_expired", expire, SagaStatus.COMPENSATING),
]


@pytest.mark.parametrize(("step", "hook", "act", "afterwards"), HOOKS, ids=[h[1] for h in HOOKS])
def test_a_hook_that_raises_blocks_and_a_retry_after_the_fix_goes_on(
    step: type[Any], hook: str, act: Callable[[Probe], None], afterwards: SagaStatus
) -> None:
    switch = Switch(getattr(step, hook))
    broken = variant(step, **{hook: switch.wrapped()})
    probe = SagaProbe(with_steps(CreatingOrder(), broken()), GIFT)

    act(probe)

    assert (probe.status, probe.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.CODE_ERROR)
    assert probe.current_step == step.__name__
    assert probe.notes[-1].text.startswith(f"{hook}() of {step.__name__} raised KeyError: 'customer_id'")
    assert probe.state == GIFT  # nothing of it was kept

    switch.broken = False
    probe.retry()
    assert probe.status is afterwards


def test_a_compensation_that_raises_blocks_and_a_retry_after_the_fix_undoes() -> None:
    switch = Switch(CreatingOrder.compensation)
    broken = variant(CreatingOrder, compensation=switch.wrapped())
    probe = SagaProbe(with_steps(broken(), ReservingCredit()), OrderState())
    probe.reply(broken, Done())
    probe.reply(ReservingCredit, Refused(reason="limit"))
    assert (probe.blocked_reason, probe.current_step) == (BlockedReason.CODE_ERROR, "CreatingOrder")

    switch.broken = False
    probe.retry()

    assert probe.just_sent == [RejectOrder(order_id=ORDER, reason="limit")]


@pytest.mark.parametrize("hook", ["on_completed", "on_compensated"])
def test_an_end_hook_that_raises_blocks_and_a_retry_after_the_fix_ends_the_saga(hook: str) -> None:
    switch = Switch(lambda self, state: [OrderPlaced(order_id=state.order_id)])
    saga = with_steps(CreatingOrder(), **{hook: switch.wrapped()})
    probe = SagaProbe(saga, OrderState())
    probe.reply(CreatingOrder, Done() if hook == "on_completed" else Failure())
    assert (probe.blocked_reason, probe.instance.blocked_step) == (BlockedReason.CODE_ERROR, "")

    switch.broken = False
    probe.retry()

    assert probe.status.terminal
    assert probe.published == [OrderPlaced(order_id=ORDER)]


def test_a_retry_without_a_fix_leaves_the_saga_blocked() -> None:
    broken = variant(ReservingStock, on_reply=Switch(ReservingStock.on_reply).wrapped())
    probe = SagaProbe(with_steps(CreatingOrder(), broken()), OrderState())
    reply_stock(probe)

    probe.retry()

    assert (probe.status, len(probe.code_errors)) == (SagaStatus.BLOCKED, 2)


def test_a_code_error_while_blocked_for_another_reason_keeps_that_reason() -> None:
    broken = variant(ReservingStock, on_reply=Switch(ReservingStock.on_reply).wrapped(), on_exhausted="block")
    probe = SagaProbe(with_steps(broken()), OrderState())
    probe.advance(HOUR)

    probe.reply(broken, StockReserved(warehouse="north"))

    assert probe.blocked_reason is BlockedReason.RETRIES_EXHAUSTED
    assert probe.notes[-1].kind == "code_error"


def test_a_blocked_saga_with_a_code_error_can_be_cancelled_before_the_pivot() -> None:
    broken = variant(ReservingCredit, command=Switch(ReservingCredit.command).wrapped())
    probe = SagaProbe(with_steps(CreatingOrder(), broken()), OrderState())
    create(probe)

    probe.cancel("give up")
    probe.reply(CreatingOrder, Done())

    assert probe.just_sent == [RejectOrder(order_id=ORDER)]


# -- what hooks return


class Odd(Step[OrderState, Done]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state: OrderState) -> CreateOrder:
        return CreateOrder(order_id=state.order_id)


def blocked_text(step: type[Any], **hooks: Any) -> str:
    probe = SagaProbe(with_steps(variant(step, **hooks)()), OrderState())
    if not probe.code_errors and "events" in hooks:
        probe.reply(step, Done())
    assert probe.blocked_reason is BlockedReason.CODE_ERROR
    return str(probe.code_errors[0])


def returning(value: object, annotation: object = None) -> Callable[..., Any]:
    def command(self: object, state: OrderState) -> Any:
        return value

    command.__annotations__["return"] = annotation
    return command


def test_a_command_that_is_none_or_not_the_annotated_one_is_a_code_error() -> None:
    for value in (None, "reserve", RejectOrder(order_id=ORDER)):
        text = blocked_text(Odd, command=returning(value, CreateOrder))
        assert "its annotation names CreateOrder" in text


def test_a_command_that_cannot_be_sent_is_a_code_error() -> None:
    unsendable = ReserveCredit.model_construct(order_id=ORDER, amount_cents=float("nan"))
    assert "cannot be sent" in blocked_text(Odd, command=returning(unsendable, ReserveCredit))


def test_an_event_hook_that_names_no_events_is_a_code_error() -> None:
    assert "which is no event" in blocked_text(Odd, events=lambda self, state: [Done()])
    assert "NoneType" in blocked_text(Odd, events=lambda self, state: None)


@pytest.mark.parametrize(("key", "why"), [(ORDER, "no str"), ("", "no key"), ("a\0", "no key")])
def test_a_key_that_cannot_be_waited_for_is_a_code_error(key: object, why: str) -> None:
    assert why in blocked_text(AwaitingPayment, awaited_key=lambda self, state: key)


class Fragile(Done):
    size: int = 0

    @field_validator("size")
    @classmethod
    def look_up(cls, size: int) -> int:
        return {0: 0}[size]


class AskFragile(Command[Fragile]):
    pass


class AskingFragile(Step[OrderState, Fragile]):
    participant = "orders"
    nothing_to_undo = True

    def command(self, state: OrderState) -> AskFragile:
        return AskFragile()


def test_a_validator_of_a_reply_that_raises_is_a_code_error_not_an_unusable_reply() -> None:
    probe = SagaProbe(with_steps(AskingFragile()), OrderState())

    probe.reply(AskingFragile, Fragile.model_construct(size=3))

    assert probe.blocked_reason is BlockedReason.CODE_ERROR
    assert "Fragile() of AskingFragile raised KeyError" in str(probe.code_errors[0])


def test_a_state_that_cannot_be_stored_is_a_code_error() -> None:
    def on_reply(self: object, state: OrderState, reply: StockReserved) -> None:
        state.warehouse = "\0"

    probe = SagaProbe(with_steps(variant(ReservingStock, on_reply=on_reply)()), OrderState())
    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.blocked_reason is BlockedReason.CODE_ERROR


def test_hooks_get_a_copy_and_the_callers_instance_is_never_touched() -> None:
    def on_reply(self: object, state: OrderState, reply: StockReserved) -> None:
        state.log.append("seen")

    probe = SagaProbe(with_steps(variant(ReservingStock, on_reply=on_reply)()), OrderState())
    before: SagaInstance = probe.instance
    steps = dict(before.steps)

    probe.reply(ReservingStock, StockReserved(warehouse="north"))

    assert probe.state.log == ["seen"]
    assert dict(before.steps) == steps


def test_no_event_is_published_by_a_decision_that_raised() -> None:
    def events(self: object, state: OrderState) -> list[Event]:
        raise ValueError("late")

    broken = variant(ReservingCredit, events=events)
    probe = SagaProbe(with_steps(broken()), OrderState())
    probe.reply(broken, Done())

    assert probe.published == []
