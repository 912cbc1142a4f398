"""A saga's rows as a story: in order, each line once, nothing guessed."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.cli.happenings import Follower, line, story
from orchestrator.instance import Direction, SagaStatus, StepStatus
from orchestrator.status import HistoryRow, SagaRow, TimelineRow

SAGA = UUID(int=1)
START = datetime(2031, 2, 3, 4, 5, 6, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def saga_row(status: SagaStatus, ended: float | None = None) -> SagaRow:
    nothing: dict[str, Any] = {one.name: None for one in fields(SagaRow)}
    times = {"started_at": START, "updated_at": START, "ended_at": None if ended is None else at(ended)}
    return SagaRow(**{**nothing, "saga_id": SAGA, "saga": "create-order", "version": 1, "status": status, **times})


def step(name: str, seq: int, status: StepStatus, began: float, ended: float | None, **more: Any) -> TimelineRow:
    empty = dict.fromkeys(("sent_at", "deadline", "error_code", "error_text", "send_error"))
    plain = {"direction": Direction.ACTION, "branch": "", "participant": "shop", "message": "do-it"}
    rest: dict[str, Any] = {**empty, **plain, "round": 1, "attempt": 1, **more}
    ended_at = None if ended is None else at(ended)
    return TimelineRow(saga_id=SAGA, seq=seq, step=name, status=status, started_at=at(began), ended_at=ended_at, **rest)


def told(*arguments: Any) -> list[tuple[str, str, str]]:
    return [(one.what, one.step, one.text) for one in story(*arguments)]


def test_an_answer_comes_before_what_it_leads_to_at_the_same_instant() -> None:
    timeline = [
        step("Creating", 1, StepStatus.SUCCEEDED, 0, 1),
        step("Shipping", 2, StepStatus.REFUSED, 1, 2, error_code="no-carrier", error_text="no carrier takes it"),
        step("Creating", 3, StepStatus.SUCCEEDED, 2, 3, direction=Direction.COMPENSATION, message="undo-it", attempt=2),
    ]
    history = [HistoryRow(UUID(int=2), SAGA, at(2), "turned_back", "Shipping", "no-carrier: no carrier takes it")]

    assert told(saga_row(SagaStatus.COMPENSATED, 3), timeline, history) == [
        ("sent", "Creating", "do-it to shop"),
        ("answered", "Creating", "done"),
        ("sent", "Shipping", "do-it to shop"),
        ("refused", "Shipping", "refused: no carrier takes it"),
        ("turned_back", "", "turning back because of Shipping"),
        ("undoing", "Creating", "undo-it to shop, to undo it"),
        ("undone", "Creating", "undone, at attempt 2"),
        ("ended", "", "compensated"),
    ]


def test_an_answer_that_never_came_is_not_called_a_refusal() -> None:
    timeline = [step("Paying", 1, StepStatus.UNKNOWN, 0, 60, error_code="timeout")]

    assert told(saga_row(SagaStatus.COMPENSATING), timeline, [])[-1] == (
        "unknown",
        "Paying",
        "no answer, it may have happened: timeout",
    )


def test_a_skipped_step_was_never_sent() -> None:
    timeline = [step("Gift", 1, StepStatus.SKIPPED, 0, 0)]

    assert told(saga_row(SagaStatus.RUNNING), timeline, []) == [("skipped", "Gift", "skipped")]


def test_a_follower_tells_each_thing_once() -> None:
    follower = Follower()
    waiting = step("Paid", 1, StepStatus.WAITING, 0, None, participant=None, message="payment-captured")
    came = step("Paid", 1, StepStatus.SUCCEEDED, 0, 2, participant=None, message="payment-captured")

    running, ended = saga_row(SagaStatus.RUNNING), saga_row(SagaStatus.COMPLETED, 2)
    assert [one.text for one in follower.news(story(running, [waiting], []))] == ["waits for payment-captured"]
    assert follower.news(story(running, [waiting], [])) == []
    news = follower.news(story(ended, [came], []))
    assert [one.text for one in news] == ["payment-captured came", "completed"]
    assert line(news[0]).plain == "04:05:08.000  ✓ Paid              payment-captured came  2.0 s"


def test_a_delay_tells_until_when_and_that_the_time_has_come() -> None:
    timer = {"participant": None, "message": "timer"}
    waits = [step("CoolingOff", 1, StepStatus.WAITING, 0, None, deadline=at(60), **timer)]
    over = [step("CoolingOff", 1, StepStatus.SUCCEEDED, 0, 60, **timer)]

    assert told(saga_row(SagaStatus.RUNNING), waits, []) == [
        ("waiting", "CoolingOff", "waits until 2031-02-03 04:06:06")
    ]
    assert told(saga_row(SagaStatus.RUNNING), over, [])[-1] == ("came", "CoolingOff", "the time has come")


def test_what_an_operator_put_right_tells_the_reason() -> None:
    by_hand = [
        step("Packing", 1, StepStatus.SUCCEEDED, 0, 9, error_code="resolved", error_text="packed by Ann"),
        step("Mailing", 2, StepStatus.SKIPPED, 9, 12, error_code="skipped", error_text="no address"),
    ]

    assert told(saga_row(SagaStatus.COMPLETED, 12), by_hand, []) == [
        ("sent", "Packing", "do-it to shop"),
        ("resolved", "Packing", "done by hand: packed by Ann"),
        ("sent", "Mailing", "do-it to shop"),
        ("skipped", "Mailing", "skipped: no address"),
        ("ended", "", "completed"),
    ]
