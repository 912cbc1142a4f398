"""Why a saga stands where it stands: told with ids and instants, and only what the core accepts is advised."""

from __future__ import annotations

import shlex
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from messaging.messages import Failure
from orchestrator import Saga
from orchestrator.evidence import Asked, Awaited, Evidence
from orchestrator.holds import Hold
from orchestrator.instance import BlockedReason, SagaStatus, StepKey
from orchestrator.signal_codec import ACTIONS
from orchestrator.signals import CodeFailed
from orchestrator.status import AuditRow, SagaRow
from orchestrator.testing import SagaProbe
from orchestrator.transitions import decide
from orchestrator.why import explain
from tests.unit.orchestrator.orders import (
    HOUR,
    MINUTE,
    SECOND,
    AwaitingPayment,
    CreatingOrder,
    Done,
    OrderState,
    Refused,
    ReservingCredit,
    Shipping,
    ShippingSaga,
    variant,
    with_steps,
)
from tests.unit.orchestrator.test_for_each import Line, PackingLines
from tests.unit.orchestrator.test_for_each import State as PackState
from tests.unit.orchestrator.test_sub_sagas import Delivering

BLOCKING = variant(CreatingOrder, on_exhausted="block")
Probe = SagaProbe[OrderState]


def evidence_of(probe: Probe, **more: Any) -> Evidence:
    """What the views and rows would hold of the probe's saga."""
    saga, cause = probe.instance, probe.instance.first_cause
    blocked = next((r for r in saga.steps.values() if r.key.step == saga.blocked_step and r.error_code), None)
    failed = (cause.step, cause.code, cause.text) if cause else (saga.blocked_step or None, None, None)
    if blocked and not cause:
        failed = (saga.blocked_step, blocked.error_code, blocked.error_text)
    reason = saga.blocked_reason.value if saga.blocked_reason else None
    row = SagaRow(
        *(saga.id, saga.pin.name, saga.pin.version, "42", saga.status, saga.current_step or None),
        *(None, None, None, saga.wake_at, *failed, reason, saga.blocked_step or None),
        *(saga.paused_at, saga.started_at, saga.updated_at, saga.ended_at),
    )
    open_steps = [
        Awaited(
            *(r.key.step, r.key.direction, r.key.branch, r.status, r.wire_name, r.participant, r.awaited_key),
            *(r.command_id, r.round, r.attempt, r.started_at, r.send_after, r.send_attempts, "", r.sent_at),
            *(r.deadline, r.error_code, r.error_text),
        )
        for r in saga.steps.values()
        if r.status.open
    ]
    return replace(Evidence(row, open_steps, (), (), ()), **more)


def advised(evidence: Evidence, probe: Probe) -> list[str]:
    """The actions that are advised, as words."""
    typed = [shlex.split(one.do) for one in explain(evidence, now=probe.now).advice if one.do.startswith("saga ")]
    assert all(words[2] == str(probe.instance.id) for words in typed)
    return [words[1] for words in typed]


def test_a_saga_that_is_held_is_told_so_with_what_releases_it() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    hold = Hold(UUID(int=1), "create-order", None, probe.now - MINUTE, "ann", "the bank is closed")

    told = explain(evidence_of(probe, kept_by=hold), now=probe.now)

    assert "Its definition is held since 2" in told.paragraph
    assert " by ann: the bank is closed. It has not begun, and waits." in told.paragraph
    release = next(one for one in told.advice if one.do.startswith("saga release"))
    assert shlex.split(release.do)[1:] == ["release", probe.instance.pin.name, "--reason", "..."]


def test_a_saga_whose_version_no_engine_has_is_told_so_with_what_may_help() -> None:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    evidence = replace(
        evidence_of(probe), known=False, signals=[Asked(kind="upgrade:2", error="", arrived_at=probe.now - MINUTE)]
    )

    told = explain(evidence, now=probe.now)

    assert "No engine that was heard of in the last minute has" in told.paragraph
    assert "Its upgrade to v2 was asked for 1 min 0 s ago; no engine has taken that yet." in told.paragraph
    assert told.advice[0].do.startswith("Start an engine that knows")
    assert "--dry-run" in told.advice[1].do


# -- situations


def sent() -> Probe:
    return SagaProbe(with_steps(CreatingOrder(), ReservingCredit()), OrderState())


def waiting() -> Probe:
    return SagaProbe(with_steps(AwaitingPayment()), OrderState())


def turning_back() -> Probe:
    probe = sent()
    probe.reply(CreatingOrder, Done())
    probe.reply(ReservingCredit, Refused(reason="limit reached"))
    return probe


def exhausted() -> Probe:
    probe = SagaProbe(with_steps(BLOCKING(), ReservingCredit()), OrderState())
    probe.advance(2 * MINUTE + SECOND)
    return probe


def at_the_pivot() -> Probe:
    probe = SagaProbe(ShippingSaga, OrderState())
    probe.reply(CreatingOrder, Done())
    probe.advance(HOUR)
    return probe


def undo_failed() -> Probe:
    probe = turning_back()
    probe.advance(HOUR)
    return probe


def code_raised() -> Probe:
    probe = sent()
    failed = CodeFailed("CreatingOrder", "KeyError: 'warehouse'")
    probe.instance = decide(probe.saga, probe.instance, failed, now=probe.now).instance
    return probe


def paused() -> Probe:
    probe = sent()
    probe.pause("the warehouse is closed")
    return probe


def ended() -> Probe:
    probe = SagaProbe(with_steps(CreatingOrder()), OrderState())
    probe.reply(CreatingOrder, Done())
    return probe


SITUATIONS = {
    make.__name__: (make, said, actions)
    for make, said, actions in [
        (sent, "sends create-order to 'orders' (attempt 1, message ", ["cancel", "pause", "abandon"]),
        (waiting, "waits for the event payment-captured with key ", ["cancel", "pause", "abandon"]),
        (turning_back, "turned back because of ReservingCredit: refused: limit reached.", ["pause", "abandon"]),
        (exhausted, "its attempts are used up.", ["retry", "resolve", "skip", "compensate", "abandon"]),
        (at_the_pivot, "is unknown, and is never guessed.", ["retry", "resolve", "skip", "abandon"]),
        (undo_failed, "The undo of CreatingOrder failed", ["retry", "resolve", "skip", "abandon"]),
        (code_raised, "The saga's own code raised at CreatingOrder.", ["retry", "abandon"]),
        (paused, "It was paused 0 ms ago.", ["resume", "abandon"]),
        (ended, "ended completed 0 ms ago; nothing is awaited.", []),
    ]
}


@pytest.mark.parametrize(("make", "said", "actions"), SITUATIONS.values(), ids=SITUATIONS)
def test_the_cause_is_told_and_each_action_that_is_advised_is_accepted(
    make: Any, said: str, actions: list[str]
) -> None:
    probe: Probe = make()
    evidence = evidence_of(probe)

    assert said in explain(evidence, now=probe.now).paragraph
    assert advised(evidence, probe) == actions
    for action in actions:
        asked = ACTIONS[action](reason="as advised")
        decision = decide(probe.saga, probe.instance, asked, now=probe.now)
        assert decision.accepted, f"{action}: {decision.refused}"


def test_every_reason_to_block_has_a_sentence_and_a_way_out() -> None:
    probe = exhausted()
    row = evidence_of(probe).saga
    for reason in BlockedReason:
        evidence = evidence_of(probe, saga=replace(row, blocked_reason=reason.value))
        explanation = explain(evidence, now=probe.now)
        assert len(explanation.sentences) > 1 and explanation.advice


# -- details


def test_a_command_that_cannot_be_sent_names_its_queue_and_when_it_is_tried_again() -> None:
    probe = sent()
    evidence = evidence_of(probe)
    unsent = replace(
        evidence.awaited[0],
        sent_at=None,
        send_attempts=3,
        send_error="no queue takes it",
        send_after=probe.now + MINUTE,
    )

    explanation = explain(replace(evidence, awaited=[unsent]), now=probe.now)

    assert "could not be sent, 3 times: no queue takes it, tried again in 1 min 0 s." in explanation.paragraph
    assert explanation.advice[0].do.startswith("Start the participant 'orders'")


def test_an_attempt_that_is_held_back_tells_until_when_and_what_ended_the_one_before() -> None:
    probe = sent()
    probe.answer_retry(CreatingOrder, "deadlock")

    assert (
        "it is held back, to be sent in 1.0 s; the attempt before ended with deadlock"
        in explain(evidence_of(probe), now=probe.now).paragraph
    )


def test_a_wait_beside_which_events_with_other_keys_are_kept_points_at_the_key() -> None:
    probe = waiting()
    evidence = evidence_of(probe)
    kept = replace(evidence, awaited=[replace(evidence.awaited[0], kept_events=2)])

    explanation = explain(kept, now=probe.now)

    assert "Kept with other keys: 2 events of this type." in explanation.paragraph
    assert "event_key" in explanation.advice[0].do


def test_a_saga_that_no_engine_looks_at_says_so_first() -> None:
    probe = sent()
    due = evidence_of(probe).saga
    late = evidence_of(probe, saga=replace(due, next_wake_at=probe.now - timedelta(minutes=5)))

    explanation = explain(late, now=probe.now)

    assert "no engine has looked at it" in explanation.paragraph
    assert explanation.advice[0].do.startswith("Start an engine that knows ")


def test_a_request_that_no_engine_has_taken_is_told() -> None:
    probe = sent()
    asked = [Asked("cancel", "", probe.now - MINUTE)]

    explanation = explain(evidence_of(probe, signals=asked), now=probe.now)

    assert "An operator asked to cancel it 1 min 0 s ago; no engine has taken that yet." in explanation.paragraph
    assert explanation.advice[0].do.startswith("Start an engine")


def test_what_the_code_raised_and_what_fits_nothing_is_told() -> None:
    probe = code_raised()
    raised = [Asked("reply", "Traceback ...\nKeyError: 'warehouse'", probe.now)]

    evidence = evidence_of(probe, signals=raised, unmatched=["unknown outcome 'maybe'"])
    paragraph = explain(evidence, now=probe.now).paragraph

    assert "A reply is kept that made the saga's code raise: KeyError: 'warehouse'." in paragraph
    assert "1 message came for it that could not be used, the last because unknown outcome 'maybe'." in paragraph


def test_who_paused_a_saga_and_why_is_told_with_what_waits_for_the_resume() -> None:
    probe = paused()
    by = AuditRow(
        *(probe.instance.id, probe.instance.id, probe.now, "pause", "Ann", "the warehouse is closed"),
        *("running", "running", "", None),
    )
    evidence = evidence_of(probe, audit=[by], signals=[Asked("reply", "", probe.now)])

    paragraph = explain(evidence, now=probe.now + HOUR).paragraph

    assert "It was paused 1 h 0 min ago by Ann: the warehouse is closed." in paragraph
    assert "Kept until it is resumed: 1 message." in paragraph
    assert "awaited until" not in paragraph


def test_the_situations_are_what_they_are_called() -> None:
    assert exhausted().blocked_reason is BlockedReason.RETRIES_EXHAUSTED
    assert at_the_pivot().blocked_reason is BlockedReason.PIVOT_UNKNOWN
    assert undo_failed().blocked_reason is BlockedReason.COMPENSATION_FAILED
    assert turning_back().status is SagaStatus.COMPENSATING
    assert StepKey("Shipping") in at_the_pivot().instance.steps and Shipping.pivot
    assert ended().status is SagaStatus.COMPLETED
    assert Failure(reason="").reason == ""


def test_a_step_with_a_child_points_at_it_and_one_with_items_says_so() -> None:
    parent = SagaProbe(with_steps(Delivering()), OrderState())
    (record,) = parent.instance.steps.values()
    assert (
        f"its child saga. Ask: saga why {record.awaited_key}" in explain(evidence_of(parent), now=parent.now).paragraph
    )

    many = SagaProbe(with_steps(PackingLines(), base=Saga[PackState]), PackState(lines=[Line(sku="a")]))
    assert "PackingLines does its items since" in explain(evidence_of(many), now=many.now).paragraph  # type: ignore[arg-type]


def test_of_many_that_are_awaited_some_are_told_and_who_is_to_answer_once() -> None:
    probe = sent()
    (awaited,) = evidence_of(probe).awaited
    many = [replace(awaited, branch=f"line-{number}", sent_at=probe.now) for number in range(200)]

    explanation = explain(evidence_of(probe, awaited=many), now=probe.now)

    assert "line-4" in explanation.paragraph and "line-5" not in explanation.paragraph
    assert f"195 more steps of it are awaited: saga show {probe.instance.id}" in explanation.paragraph
    assert [one.do.partition(",")[0] for one in explanation.advice[:2]] == [
        "See whether 'orders' runs",
        f'saga cancel {probe.instance.id} --reason "..."',
    ]


def test_a_step_with_a_child_tells_how_that_stands_and_says_to_look_at_it_first() -> None:
    probe = SagaProbe(with_steps(Delivering()), OrderState())
    evidence = evidence_of(probe)
    (awaited,) = evidence.awaited
    child = replace(evidence.saga, waiting_for="an operator", blocked_reason="pivot_unknown", blocked_step="Driving")

    blocked = explain(replace(evidence, awaited=[replace(awaited, child=child)]), now=probe.now)
    going = replace(child, blocked_reason=None, blocked_step=None, waiting_for="event paid")
    goes = explain(replace(evidence, awaited=[replace(awaited, child=going)]), now=probe.now)

    assert ", which is blocked at Driving (pivot_unknown). Ask: saga why" in blocked.paragraph
    assert ", which is running, waiting for event paid. Ask: saga why" in goes.paragraph
    assert blocked.advice[0].do == f"Look at the child: saga why {awaited.awaited_key}"


def test_what_runs_here_is_no_participants_and_an_abandoned_child_is_replaced() -> None:
    probe = exhausted()
    row = evidence_of(probe).saga
    local = explain(evidence_of(probe, blocked_on=("local", "")), now=probe.now)
    abandoned = replace(row, blocked_reason=BlockedReason.CHILD_ABANDONED.value)
    orphaned = explain(evidence_of(probe, saga=abandoned, blocked_on=("saga", "")), now=probe.now)

    assert local.advice[0].do.startswith("Mend what CreatingOrder")
    assert [one.consequence for one in (*local.advice, *orphaned.advice) if one.action == "retry"] == [
        "runs its function again; what it did before was rolled back",
        "starts another child saga in its place",
    ]


def test_a_wait_for_an_event_that_never_came_says_which_and_under_which_key() -> None:
    probe = waiting()
    (advice, *_) = explain(evidence_of(probe), now=probe.now).advice
    assert advice.do.startswith("See whether payment-captured is published, with the key '")
