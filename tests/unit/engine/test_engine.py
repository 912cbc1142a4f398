"""The engine's transactions, one at a time, with time standing still."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from messaging import envelope as wire
from messaging.codec import DEFAULT_LIMITS
from messaging.envelope import Envelope
from messaging.errors import NotConfirmed, PublishError, Unroutable
from messaging.transport import Delivery, Outgoing
from orchestrator.incoming import Reply as ReplyItem
from orchestrator.incoming import read_reply
from orchestrator.instance import BlockedReason, SagaStatus, StepKey, StepStatus
from orchestrator.signal_codec import ACTIONS, signal_from_row, signal_to_row
from orchestrator.signals import (
    AbandonRequested,
    ActionRequested,
    CancelRequested,
    EventMatched,
    PauseRequested,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
)
from orchestrator.store_records import NewSignal
from tests.unit.engine.bench import AwaitingPayment, BookingFlight, BookingHotel, Workbench, broken_hooks

FLIGHT, PAYMENT, HOTEL = (StepKey(step.name) for step in (BookingFlight, AwaitingPayment, BookingHotel))


@pytest.fixture
async def bench() -> Workbench:
    broken_hooks.clear()
    return await Workbench().open()


def ask(bench: Workbench, saga_id: object, asked: ActionRequested) -> NewSignal:
    kind, body = signal_to_row(asked) or ("", "")
    return NewSignal(saga_id, kind, body)  # type: ignore[arg-type]


async def test_a_started_saga_sends_its_first_command_once_it_is_committed(bench: Workbench) -> None:
    saga_id = await bench.start(1)

    assert await bench.wake() == 1
    assert bench.sent == []
    await bench.publish()

    (command,) = bench.sent
    assert command.envelope.type == "book-flight"
    assert command.envelope.text_header(wire.IDEMPOTENCY_KEY) == f"{saga_id}/BookingFlight/action#1"
    assert (
        command.envelope.correlation_id
        == command.envelope.message_id
        == str(bench.saga(saga_id).steps[FLIGHT].command_id)
    )


async def test_a_command_that_no_process_published_is_found_by_its_row_and_is_the_same_message(
    bench: Workbench,
) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    other = bench.another_process()  # the first one died before it published

    assert await other.engine.claim_unsent() == 0
    bench.clock.advance(timedelta(seconds=31))
    assert await other.engine.claim_unsent() == 1
    await other.publish()

    assert [m.envelope.message_id for m in bench.sent] == [str(bench.saga(saga_id).steps[FLIGHT].command_id)]


async def test_a_confirmed_send_is_marked_by_the_next_transaction(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    assert bench.saga(saga_id).steps[FLIGHT].sent_at is None

    await bench.start(2)
    await bench.wake()

    assert bench.saga(saga_id).steps[FLIGHT].sent_at is not None
    assert bench.saga(saga_id).steps[FLIGHT].send_after is None


async def test_marks_of_a_transaction_that_failed_are_written_by_the_next(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    save = bench.store.transaction

    class Broken(RuntimeError): ...

    def refuse() -> object:
        raise Broken

    bench.store.transaction = refuse  # type: ignore[method-assign,assignment]
    with pytest.raises(Broken):
        await bench.engine.flush_marks()
    bench.store.transaction = save  # type: ignore[method-assign]
    await bench.engine.flush_marks()

    assert bench.saga(saga_id).steps[FLIGHT].sent_at is not None


async def test_an_unroutable_command_is_put_off_and_its_saga_waits_instead_of_timing_out(bench: Workbench) -> None:
    bench.transport.refuse = lambda message: Unroutable(message.envelope.message_id, str(message.destination))
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await bench.engine.flush_marks()

    bench.clock.advance(timedelta(seconds=11))
    await bench.wake()
    record = bench.saga(saga_id).steps[FLIGHT]
    assert (record.status, record.attempt, record.sent_at) == (StepStatus.OUTSTANDING, 1, None)

    def takes_all(_: Outgoing) -> None:
        return None

    bench.transport.refuse = takes_all
    bench.clock.advance(timedelta(minutes=2))
    await bench.engine.claim_unsent()
    await bench.publish()
    assert [m.envelope.message_id for m in bench.sent] == [str(record.command_id)]


async def test_a_publish_that_was_not_confirmed_is_sent_again_with_the_same_id(bench: Workbench) -> None:
    bench.transport.refuse = lambda m: NotConfirmed(m.envelope.message_id, str(m.destination), "the broker is away")
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await bench.engine.flush_marks()
    bench.transport.refuse = lambda _: None

    bench.clock.instant = bench.saga(saga_id).steps[FLIGHT].send_after or bench.clock.instant
    assert await bench.engine.claim_unsent() == 1
    await bench.publish()

    assert [m.envelope.message_id for m in bench.sent] == [str(bench.saga(saga_id).steps[FLIGHT].command_id)]


async def test_only_the_first_send_of_a_command_may_share_a_message_with_others(bench: Workbench) -> None:
    sends: list[bool] = []

    def refuse(message: Outgoing) -> PublishError | None:
        sends.append(message.may_join)
        lost = NotConfirmed(message.envelope.message_id, str(message.destination), "refused: the queue is full")
        return lost if len(sends) == 1 else None

    bench.transport.refuse = refuse
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await bench.engine.flush_marks()
    bench.clock.instant = bench.saga(saga_id).steps[FLIGHT].send_after or bench.clock.instant
    await bench.engine.claim_unsent()
    await bench.publish()
    await bench.engine.replies([bench.answer(bench.sent[0], wire.RETRY)])
    bench.clock.advance(timedelta(minutes=1))
    await bench.wake()
    await bench.engine.claim_unsent()
    await bench.publish()

    assert sends == [True, False, True], "the next attempt is another message"


async def test_two_replies_of_one_saga_in_one_batch_are_decided_in_order(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    first = bench.answer(bench.sent[0])

    await bench.engine.replies([first, first])

    saga = bench.saga(saga_id)
    assert saga.steps[FLIGHT].status is StepStatus.SUCCEEDED
    assert saga.steps[PAYMENT].status is StepStatus.WAITING
    assert bench.store.tables.history and saga.revision == 2


async def test_a_reply_to_nothing_we_sent_is_kept_whole_with_why(bench: Workbench) -> None:
    envelope = Envelope("m-1", b'{"forged": true}', correlation_id=str(uuid4()), headers={"outcome": "success"})
    item = read_reply(Delivery(envelope, "replies", tag=1, epoch=1), DEFAULT_LIMITS)
    assert isinstance(item, ReplyItem)

    await bench.engine.replies([item])

    (kept,) = bench.store.tables.unmatched.values()
    assert kept.body == b'{"forged": true}'
    assert "of nothing we sent" in kept.reason


async def test_a_reply_with_an_unknown_outcome_is_kept_whole_and_the_saga_waits_on(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()

    await bench.engine.replies([bench.answer(bench.sent[0], outcome="perhaps")])

    (kept,) = bench.store.tables.unmatched.values()
    assert kept.saga_id == saga_id and "perhaps" in kept.reason
    assert bench.saga(saga_id).steps[FLIGHT].status is StepStatus.OUTSTANDING


async def test_a_hook_that_raises_blocks_its_saga_alone_and_a_retry_applies_the_reply_again(bench: Workbench) -> None:
    broken_hooks.add(1)
    bad, good = await bench.start(1), await bench.start(2)
    await bench.wake()
    await bench.publish()

    await bench.engine.replies([bench.answer(command) for command in bench.sent])
    assert bench.saga(bad).status is SagaStatus.BLOCKED
    assert bench.saga(bad).blocked_reason is BlockedReason.CODE_ERROR
    assert bench.saga(good).current_step == "AwaitingPayment"

    broken_hooks.clear()
    async with bench.store.transaction() as tx:
        await tx.add_signals([ask(bench, bad, RetryRequested("mended", by="ann"))])
    assert await bench.engine.signals(50) == 1
    assert await bench.engine.signals(50) == 1  # the reply that was kept aside

    assert bench.saga(bad).current_step == "AwaitingPayment"
    assert '"log":"flight "' in bench.saga(bad).state
    assert [entry.action for entry in bench.store.tables.audit.values()] == ["retry"]


async def test_a_retry_of_a_saga_that_is_not_blocked_is_refused_with_why(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    async with bench.store.transaction() as tx:
        await tx.add_signals([ask(bench, saga_id, RetryRequested("hoping", by="ann"))])

    await bench.engine.signals(50)

    (entry,) = bench.store.tables.audit.values()
    assert "not blocked" in entry.refused


async def test_an_event_reaches_every_saga_that_waits_for_it_and_no_later_one(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)

    new = await bench.engine.keep_events([bench.event(1), bench.event(2, "event-2")])
    assert await bench.engine.match_events(new) == 1
    later = await bench.answered_flight(1_000_001)

    assert bench.saga(saga_id).current_step == "BookingHotel"
    assert bench.saga(later).current_step == "AwaitingPayment"


async def test_an_event_of_an_older_version_is_lifted_before_it_is_kept(bench: Workbench) -> None:
    await bench.engine.match_events(await bench.engine.keep_events([bench.event(1, version=1)]))

    saga_id = await bench.answered_flight(1)

    assert bench.saga(saga_id).steps[PAYMENT].status is StepStatus.SUCCEEDED


async def test_a_command_says_which_version_of_its_class_wrote_it(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)

    assert [command.envelope.headers[wire.SCHEMA_VERSION] for command in bench.sent] == [2]
    assert bench.saga(saga_id).steps[FLIGHT].schema_version == 2


async def test_an_event_that_comes_before_anyone_waits_is_kept_and_taken_by_the_first_who_does(
    bench: Workbench,
) -> None:
    await bench.engine.match_events(await bench.engine.keep_events([bench.event(1)]))

    saga_id = await bench.answered_flight(1)

    assert bench.saga(saga_id).current_step == "BookingHotel"


async def test_an_event_delivered_twice_is_one_event(bench: Workbench) -> None:
    await bench.engine.keep_events([bench.event(1)])

    assert await bench.engine.keep_events([bench.event(1)]) == []


async def test_the_sweep_joins_an_event_and_a_wait_that_missed_each_other(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)
    await bench.engine.keep_events([bench.event(1)])  # and the process was killed before it matched

    assert await bench.engine.match_events() == 1
    assert bench.saga(saga_id).current_step == "BookingHotel"


async def test_cancel_undoes_and_is_audited_with_before_and_after(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)
    async with bench.store.transaction() as tx:
        await tx.add_signals([ask(bench, saga_id, CancelRequested("customer rang", by="ann"))])

    await bench.engine.signals(50)
    await bench.publish()

    (entry,) = bench.store.tables.audit.values()
    assert (entry.action, entry.by, entry.before, entry.after) == ("cancel", "ann", "running", "compensating")
    assert bench.sent[-1].envelope.type == "cancel-flight"
    assert bench.sent[-1].envelope.text_header(wire.COMPENSATES) == f"{saga_id}/BookingFlight/action#1"


async def act(bench: Workbench, saga_id: UUID, asked: ActionRequested) -> None:
    async with bench.store.transaction() as tx:
        await tx.add_signals([ask(bench, saga_id, asked)])
    await bench.engine.signals(50)
    await bench.publish()


def audited(bench: Workbench) -> list[tuple[str, str, str, str]]:
    entries = bench.store.tables.audit.values()
    return [(entry.action, entry.before, entry.after, entry.refused) for entry in entries]


async def test_while_paused_answers_are_kept_and_nothing_is_sent_until_the_saga_is_resumed(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await act(bench, saga_id, PauseRequested("the hotels are closed", by="ann"))
    await bench.engine.replies([bench.answer(bench.sent[-1])])
    await bench.engine.keep_events([bench.event(1)])
    bench.clock.advance(timedelta(hours=5))

    assert await bench.engine.signals(50) == 0
    assert await bench.wake() == 0
    assert bench.saga(saga_id).steps[FLIGHT].status is StepStatus.OUTSTANDING

    await act(bench, saga_id, ResumeRequested("they are open", by="bob"))
    assert bench.saga(saga_id).steps[FLIGHT].status is StepStatus.SUCCEEDED
    assert bench.saga(saga_id).current_step == "AwaitingPayment"
    assert audited(bench) == [("pause", "running", "running", ""), ("resume", "running", "running", "")]


async def test_an_event_that_comes_while_paused_is_applied_on_resume_however_late_and_a_second_one_stays_kept(
    bench: Workbench,
) -> None:
    saga_id = await bench.answered_flight(1)
    await act(bench, saga_id, PauseRequested("wait"))
    for message_id in ("event-1", "event-2"):
        await bench.engine.match_events(await bench.engine.keep_events([bench.event(1, message_id)]))
    await bench.engine.match_events()
    first, second = bench.store.tables.events.values()
    assert (first.consumed_by, second.consumed_by) == (saga_id, None)
    bench.clock.advance(timedelta(days=3))

    await act(bench, saga_id, ResumeRequested("go on"))

    assert bench.saga(saga_id).steps[PAYMENT].status is StepStatus.SUCCEEDED
    assert bench.sent[-1].envelope.type == "book-hotel"


async def test_a_command_written_just_before_the_pause_leaves_after_the_resume(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)
    async with bench.store.transaction() as tx:
        event = EventMatched(PAYMENT, uuid4(), '{"number": 1}', bench.clock.now())
        kind, body = signal_to_row(event) or ("", "")
        await tx.add_signals([NewSignal(saga_id, kind, body), ask(bench, saga_id, PauseRequested("wait"))])
    await bench.engine.signals(50)
    await bench.publish()
    bench.clock.advance(timedelta(hours=1))
    assert await bench.engine.claim_unsent() == 0
    assert [command.envelope.type for command in bench.sent] == ["book-flight"]

    await act(bench, saga_id, ResumeRequested("go on"))
    assert await bench.engine.claim_unsent() == 1
    await bench.publish()
    assert [command.envelope.type for command in bench.sent] == ["book-flight", "book-hotel"]


async def test_what_is_asked_of_a_paused_saga_is_answered_at_once(bench: Workbench) -> None:
    saga_id = await bench.answered_flight(1)
    await act(bench, saga_id, PauseRequested("wait"))

    await act(bench, saga_id, CancelRequested("customer rang"))
    assert bench.saga(saga_id).status is SagaStatus.COMPENSATING
    assert bench.sent[-1].envelope.type == "book-flight"

    await act(bench, saga_id, ResumeRequested("go on"))
    assert await bench.wake() == 1
    await bench.publish()
    assert bench.sent[-1].envelope.type == "cancel-flight"


@pytest.mark.parametrize("action", ACTIONS.values())
def test_what_operators_ask_is_read_back_from_its_row(action: type[ActionRequested]) -> None:
    asked = action("because", by="ann")
    row = signal_to_row(asked)

    assert row is not None
    assert signal_from_row(*row) == asked


async def test_what_is_put_right_by_hand_or_refused_is_audited(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await act(bench, saga_id, ResolveRequested("hoping", by="ann"))
    broken_hooks.add(1)
    await bench.engine.replies([bench.answer(bench.sent[-1])])
    await act(bench, saga_id, SkipRequested("not needed", by="ann"))
    await act(bench, saga_id, AbandonRequested("settled", by="bob"))

    refused = "it is blocked by code_error: deploy code that works, then retry"
    assert audited(bench) == [
        ("resolve", "running", "running", "it is running, not blocked"),
        ("skip", "blocked", "blocked", refused),
        ("abandon", "blocked", "abandoned", ""),
    ]


async def test_a_parked_reply_that_turns_out_unusable_is_kept_whole(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await act(bench, saga_id, PauseRequested("wait"))
    await bench.engine.replies([bench.answer(bench.sent[-1], outcome="perhaps")])

    await act(bench, saga_id, ResumeRequested("go on"))

    (kept,) = bench.store.tables.unmatched.values()
    assert (kept.saga_id, kept.reason) == (saga_id, "unknown outcome 'perhaps'")
    assert b"perhaps" in kept.body


async def test_until_caught_up_only_new_sagas_are_taken_on(bench: Workbench) -> None:
    overdue = await bench.start(1)
    await bench.wake()
    await bench.publish()
    await bench.engine.flush_marks()
    bench.clock.advance(timedelta(seconds=60))
    fresh = await bench.start(2)

    assert await bench.engine.wake(50, deadlines=False) == 1

    assert bench.saga(fresh).current_step == "BookingFlight"
    assert bench.saga(overdue).steps[FLIGHT].attempt == 1


async def test_a_saga_that_cannot_be_written_is_blocked_and_told_apart(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.engine.quarantine(RuntimeError("the row refuses"))

    assert bench.saga(saga_id).blocked_reason is BlockedReason.CODE_ERROR
    assert any("the row refuses" in str(note) for note in bench.store.tables.history.values())
