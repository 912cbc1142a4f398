"""What every store promises, told on memory, SQLite and PostgreSQL (through both drivers)."""

# ruff: noqa: PT012 - what raises here are whole transactions

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from messaging.envelope import Envelope, to_queue
from messaging.transport import Outgoing
from orchestrator.errors import ConcurrentUpdate
from orchestrator.instance import (
    BlockedReason,
    Direction,
    FirstCause,
    Pin,
    SagaInstance,
    SagaStatus,
    StepKey,
    StepStatus,
)
from orchestrator.signals import Decision, Note, Replaced
from orchestrator.store_records import AuditEntry, CommandRef, Locked, NewSignal, ReceivedEvent, UnmatchedMessage
from tests.conformance.stores import (
    HOUR,
    NOON,
    PIN,
    SECOND,
    MovableClock,
    adding,
    changing,
    command,
    load,
    make_store,
    new_saga,
    opened,
    sqlite_url,
    started,
    wait,
)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "psycopg"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[Any]:
    where = ""
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield store


def full_saga() -> SagaInstance:
    """A saga in which every field says something else."""
    return new_saga(
        business_key="42",
        wake_at=None,
        status=SagaStatus.BLOCKED,
        current_step="ReservingCredit",
        deadline=NOON + 3 * HOUR,
        blocked_reason=BlockedReason.CODE_ERROR,
        blocked_step="ReservingCredit",
        blocked_from=SagaStatus.COMPENSATING,
        blocked_at=NOON + SECOND,
        first_cause=FirstCause("ReservingStock", "out-of-stock", "none left, désolé"),
        trace="00-1-2-01",
        seq=7,
    )


# -- starting


async def test_a_started_saga_is_loaded_as_it_was_written(store: Any) -> None:
    saga = full_saga()
    async with store.transaction() as tx:
        assert await tx.start(saga) == (saga.id, True)
    assert await load(store, saga.id) == saga


async def test_a_second_start_with_the_key_returns_the_first_saga_and_the_transaction_goes_on(store: Any) -> None:
    first, second, third = new_saga(business_key="42"), new_saga(business_key="42"), new_saga(business_key="43")
    async with store.transaction() as tx:
        await tx.start(first)
    async with store.transaction() as tx:
        assert await tx.start(second) == (first.id, False)
        assert await tx.start(third) == (third.id, True)
    async with store.transaction() as tx:
        assert set((await tx.lock([first.id, second.id, third.id])).sagas) == {first.id, third.id}


async def test_sagas_of_other_names_or_without_a_key_do_not_meet(store: Any) -> None:
    async with store.transaction() as tx:
        for saga in (
            new_saga(business_key="42"),
            new_saga(business_key="42", pin=replace(PIN, name="ship-order")),
            new_saga(),
            new_saga(),
        ):
            assert await tx.start(saga) == (saga.id, True)


async def test_starting_the_very_same_saga_again_changes_nothing(store: Any) -> None:
    with_key, without = new_saga(business_key="42"), new_saga()
    async with store.transaction() as tx:
        await tx.start(with_key)
        await tx.start(without)
        assert await tx.start(replace(with_key, state="{}")) == (with_key.id, False)
        assert await tx.start(replace(without, state="{}")) == (without.id, False)
    assert (await load(store, without.id)).state == without.state


async def test_a_key_is_reused_only_after_the_end_and_only_when_asked_for(store: Any) -> None:
    first = await started(store, business_key="42")
    again = new_saga(business_key="42")
    async with store.transaction() as tx:
        assert await tx.start(again, reuse_key_after_end=True) == (first.id, False)
        loaded = (await tx.lock([first.id])).sagas[first.id]
        await tx.save([Decision(replace(loaded, status=SagaStatus.COMPLETED, wake_at=None, ended_at=NOON))])
    async with store.transaction() as tx:
        assert await tx.start(again) == (first.id, False)
        assert await tx.start(again, reuse_key_after_end=True) == (again.id, True)
        assert await tx.start(new_saga(business_key="42"), reuse_key_after_end=True) == (again.id, False)


async def test_what_was_started_in_a_transaction_that_raised_never_happened(store: Any) -> None:
    first, second = new_saga(business_key="42"), new_saga(business_key="42")
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.start(first)
            raise ZeroDivisionError
    async with store.transaction() as tx:
        assert await tx.start(second) == (second.id, True)
        assert not (await tx.lock([first.id])).sagas


@pytest.mark.parametrize(
    "changes",
    [
        {"wake_at": None},
        {"status": SagaStatus.COMPLETED},
        {"paused_at": NOON},
        {"status": SagaStatus.BLOCKED, "blocked_reason": BlockedReason.CODE_ERROR},
    ],
    ids=str,
)
async def test_no_saga_is_stored_that_nothing_wakes_or_that_wakes_while_it_rests(store: Any, changes: Any) -> None:
    with pytest.raises(Exception, match="wake_at"):
        async with store.transaction() as tx:
            await tx.start(new_saga(**changes))


# -- locking and loading


async def test_unknown_sagas_are_left_out(store: Any) -> None:
    saga = await started(store)
    async with store.transaction() as tx:
        assert set((await tx.lock([uuid4(), saga.id, saga.id])).sagas) == {saga.id}
        assert not (await tx.lock([])).sagas


async def test_the_instant_is_that_of_the_lock_until_the_next_lock(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command())
    async with store.transaction() as tx:
        clock.move(SECOND)
        assert (await tx.lock([saga.id])).now == NOON + SECOND
        clock.move(SECOND)
        assert await tx.now() == NOON + SECOND


async def test_due_sagas_come_earliest_first_and_no_more_than_asked_for(store: Any, clock: MovableClock) -> None:
    late, early, middle, _ = [await started(store, wake_at=NOON + seconds * SECOND) for seconds in (3, 1, 2, 100)]
    clock.move(3 * SECOND)
    async with store.transaction() as tx:
        assert list((await tx.lock_due([PIN], limit=10)).sagas) == [early.id, middle.id, late.id]
        assert list((await tx.lock_due([PIN], limit=2)).sagas) == [early.id, middle.id]
        assert not (await tx.lock_due([PIN], limit=0)).sagas


async def test_due_sagas_of_definitions_not_known_here_are_left_alone(store: Any) -> None:
    await started(store)
    others = [replace(PIN, name="other"), replace(PIN, version=2), replace(PIN, fingerprint="f2")]
    async with store.transaction() as tx:
        assert not (await tx.lock_due(others, limit=10)).sagas
        assert not (await tx.lock_due([], limit=10)).sagas
        assert len((await tx.lock_due([*others, PIN], limit=10)).sagas) == 1


async def test_only_new_sagas_can_be_asked_for(store: Any) -> None:
    new = await started(store)
    await started(store, command())
    async with store.transaction() as tx:
        assert set((await tx.lock_due([PIN], limit=10, only_new=True)).sagas) == {new.id}


# -- saving


async def test_records_are_loaded_as_they_were_saved_but_for_body_and_reply(store: Any) -> None:
    record = command(
        key=StepKey("ReservingCredit", Direction.COMPENSATION),
        status=StepStatus.REFUSED,
        round=2,
        attempt=3,
        tries=4,
        unanswered=5,
        compensates="x/action#1",
        sent_at=NOON - SECOND,
        send_attempts=6,
        awaited_key="k",
        reply="{}",
        error_code="limit",
        error_text="über",
        ended_at=NOON + SECOND,
        schema_version=7,
    )
    waiting = wait(seq=2)
    saga = await started(store, record, waiting)
    assert saga.steps == {record.key: replace(record, body=None, reply=None), waiting.key: waiting}
    assert saga.seq == 2


async def test_a_changed_record_without_body_keeps_the_stored_one(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command(body="first", send_after=None))
    (record,) = saga.steps.values()
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([changing(saga, replace(record, attempt=2, command_id=uuid4(), send_after=NOON))])
    async with store.transaction() as tx:
        (claimed,) = await tx.claim_unsent(limit=10, grace=SECOND)
    assert claimed.record.body == "first"
    assert claimed.record.attempt == 2


async def test_saving_raises_the_revision_and_writes_every_field(store: Any) -> None:
    saga = await started(store)
    changed = replace(full_saga(), id=saga.id, business_key=None, revision=saga.revision, trace="")
    changed = replace(changed, updated_at=NOON + SECOND)
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([Decision(changed)])
    assert await load(store, saga.id) == replace(changed, revision=saga.revision + 1)


async def test_a_saga_saved_by_somebody_else_since_is_not_overwritten(store: Any) -> None:
    one, two = await started(store), await started(store)
    async with store.transaction() as tx:
        await tx.lock([two.id])
        await tx.save([Decision(replace(two, state="second"))])
    with pytest.raises(ConcurrentUpdate, match=f"{two.id}.*expected revision {two.revision}, found {two.revision + 1}"):
        async with store.transaction() as tx:
            await tx.lock([one.id, two.id])
            await tx.save([Decision(replace(one, state="stale")), Decision(replace(two, state="stale"))])
    assert (await load(store, one.id)).state == one.state
    assert (await load(store, two.id)).state == "second"


async def test_many_sagas_are_saved_at_once_and_nothing_at_all_is_fine(store: Any) -> None:
    sagas = [await started(store) for _ in range(20)]
    async with store.transaction() as tx:
        await tx.lock([saga.id for saga in sagas])
        await tx.save([adding(saga, command(), wait(str(saga.id), seq=2)) for saga in sagas])
        await tx.save([])
    async with store.transaction() as tx:
        loaded = (await tx.lock([saga.id for saga in sagas])).sagas
    assert all(len(saga.steps) == 2 for saga in loaded.values())


# -- commands


async def test_commands_are_found_by_the_ids_of_all_their_attempts(store: Any) -> None:
    saga = await started(store, command())
    (record,) = saga.steps.values()
    second = replace(record, attempt=2, command_id=uuid4())
    assert record.command_id is not None
    old = Replaced(record.command_id, record.key, 1, 1)
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([replace(changing(saga, second), replaced=(old,))])
    async with store.transaction() as tx:
        refs, locked = await tx.lock_commands([record.command_id, second.command_id, uuid4()])
        assert refs == {
            record.command_id: CommandRef(saga.id, record.key, 1, 1),
            second.command_id: CommandRef(saga.id, record.key, 1, 2),
        }
        assert set(locked.sagas) == {saga.id} and set(locked.sagas[saga.id].steps) == {record.key}
        assert await tx.lock_commands([]) == ({}, Locked(await tx.now()))


async def test_a_confirmed_command_has_nothing_to_send_any_more(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command())
    (record,) = saga.steps.values()
    clock.move(SECOND)
    async with store.transaction() as tx:
        await tx.mark_sent([record.command_id, uuid4()])
    (marked,) = (await load(store, saga.id)).steps.values()
    assert (marked.send_after, marked.sent_at) == (None, NOON + SECOND)
    async with store.transaction() as tx:
        await tx.mark_sent([])
        assert await tx.claim_unsent(limit=10, grace=SECOND) == []


async def test_marks_of_replaced_or_answered_attempts_are_ignored(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command("One"), command("Two", seq=2))
    one, two = saga.steps[StepKey("One")], saga.steps[StepKey("Two")]
    retried = replace(one, attempt=2, command_id=uuid4(), send_after=NOON + HOUR)
    answered = replace(two, status=StepStatus.SUCCEEDED, send_after=None, sent_at=NOON)
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([changing(saga, retried, answered)])
    clock.move(SECOND)
    async with store.transaction() as tx:
        await tx.mark_sent([one.command_id, two.command_id])
        await tx.put_off_sends({one.command_id: (NOON, "away"), two.command_id: (NOON, "away")})
    steps = (await load(store, saga.id)).steps
    assert steps[one.key].send_after == NOON + HOUR
    assert (steps[two.key].send_after, steps[two.key].sent_at) == (None, NOON)


async def test_unsent_commands_are_claimed_earliest_first_for_a_grace(store: Any, clock: MovableClock) -> None:
    first = await started(store, command("One", send_after=NOON + SECOND), trace="t")
    second = await started(store, command("Two", send_after=NOON), command("Later", seq=2, send_after=NOON + HOUR))
    clock.move(SECOND)
    async with store.transaction() as tx:
        claimed = await tx.claim_unsent(limit=10, grace=30 * SECOND)
    assert [(one.saga_id, one.record.key.step, one.send_attempts) for one in claimed] == [
        (second.id, "Two", 1),
        (first.id, "One", 1),
    ]
    assert claimed[1].saga_name == PIN.name
    assert claimed[1].trace == "t"
    assert claimed[1].record == replace(
        command("One"),
        command_id=claimed[1].record.command_id,
        send_after=NOON + 31 * SECOND,
        send_attempts=1,
    )
    async with store.transaction() as tx:
        assert await tx.claim_unsent(limit=10, grace=SECOND) == []
    clock.move(31 * SECOND)
    async with store.transaction() as tx:
        assert [one.send_attempts for one in await tx.claim_unsent(limit=1, grace=SECOND)] == [2]


async def test_a_saga_that_was_started_without_a_trace_is_given_one(store: Any) -> None:
    saga, other = await started(store, command("One", send_after=NOON + SECOND)), await started(store)
    async with store.transaction() as tx:
        await tx.lock([saga.id, other.id])
        await tx.set_traces({saga.id: "00-1-2-01"})
        await tx.set_traces({})

    async with store.transaction() as tx:
        locked = await tx.lock([saga.id, other.id])

    assert (locked.sagas[saga.id].trace, locked.sagas[other.id].trace) == ("00-1-2-01", other.trace)


async def test_commands_of_paused_or_ended_sagas_are_not_claimed(store: Any) -> None:
    await started(store, command(), paused_at=NOON, wake_at=None)
    await started(store, command(), status=SagaStatus.ABANDONED, wake_at=None)
    blocked = {"status": SagaStatus.BLOCKED, "blocked_reason": BlockedReason.CODE_ERROR, "wake_at": None}
    waiting = await started(store, command(), **blocked)
    async with store.transaction() as tx:
        assert [one.saga_id for one in await tx.claim_unsent(limit=10, grace=SECOND)] == [waiting.id]


async def test_a_send_that_was_put_off_is_claimed_again_when_its_time_comes(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command())
    (record,) = saga.steps.values()
    async with store.transaction() as tx:
        await tx.claim_unsent(limit=10, grace=SECOND)
        await tx.put_off_sends({record.command_id: (NOON + HOUR, "no queue takes it")})
        await tx.put_off_sends({})
    clock.move(2 * SECOND)
    async with store.transaction() as tx:
        assert await tx.claim_unsent(limit=10, grace=SECOND) == []
    clock.move(HOUR)
    async with store.transaction() as tx:
        assert [one.send_attempts for one in await tx.claim_unsent(limit=10, grace=SECOND)] == [2]


async def test_saving_a_saga_does_not_forget_claims_made_meanwhile_but_a_new_attempt_does(store: Any) -> None:
    saga = await started(store, command())
    (record,) = saga.steps.values()
    async with store.transaction() as tx:
        await tx.claim_unsent(limit=10, grace=SECOND)
    async with store.transaction() as tx:
        claimed = (await tx.lock([saga.id])).sagas[saga.id]
        await tx.save([changing(claimed, replace(record, deadline=NOON))])
    again = await load(store, saga.id)
    assert again.steps[record.key].send_attempts == 1
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([changing(again, replace(record, command_id=uuid4(), attempt=2))])
    assert (await load(store, saga.id)).steps[record.key].send_attempts == 0


async def test_after_a_forgetful_broker_every_unanswered_command_is_due_again(store: Any, clock: MovableClock) -> None:
    answered = command("Done", seq=2, status=StepStatus.SUCCEEDED, send_after=None)
    patient = command("Patient", seq=3, send_after=None, deadline=NOON + 9 * HOUR)
    saga = await started(store, command(send_after=None, sent_at=NOON), answered, patient, wait(seq=4))
    await started(store, command(), status=SagaStatus.ABANDONED, wake_at=None)
    clock.move(2 * HOUR)
    async with store.transaction() as tx:
        assert await tx.make_unanswered_due(timeout=HOUR) == 2
        claimed = await tx.claim_unsent(limit=10, grace=SECOND)
    assert [one.record.command_id for one in claimed] == [
        saga.steps[StepKey("ReservingCredit")].command_id,
        patient.command_id,
    ]
    assert [one.record.deadline for one in claimed] == [NOON + 3 * HOUR, NOON + 9 * HOUR]


# -- signals


def signal(saga: SagaInstance, kind: str = "cancel", error: str = "") -> NewSignal:
    return NewSignal(saga.id, kind, "{}", error)


async def test_signals_are_pending_in_order_of_arrival_until_they_are_taken(store: Any) -> None:
    saga, other = await started(store), await started(store)
    async with store.transaction() as tx:
        await tx.add_signals([signal(saga, f"{number:02}") for number in range(20)])
        await tx.add_signals([signal(other, "other"), signal(saga, "last")])
        await tx.add_signals([])
    async with store.transaction() as tx:
        pending = await tx.pending_signals([saga.id])
        assert [one.kind for one in pending] == [*(f"{number:02}" for number in range(20)), "last"]
        await tx.take_signals([one.id for one in pending[:-1]])
        assert await tx.pending_signals([saga.id]) == pending[-1:]
        assert await tx.pending_signals([]) == []


async def test_a_signal_kept_aside_is_pending_again_when_it_is_revived(store: Any) -> None:
    saga, other = await started(store), await started(store)
    async with store.transaction() as tx:
        await tx.add_signals(
            [signal(saga, "aside", error="Traceback"), signal(saga, "fails"), signal(other, error="x")]
        )
        (pending,) = await tx.pending_signals([saga.id])
        assert pending.kind == "fails"
        await tx.fail_signals({pending.id: "Traceback"})
        assert await tx.pending_signals([saga.id]) == []
    async with store.transaction() as tx:
        await tx.revive_signals([saga.id])
        assert [one.kind for one in await tx.pending_signals([saga.id, other.id])] == ["aside", "fails"]


async def test_signalled_sagas_are_locked_unless_not_known_here_or_paused_and_not_asked(store: Any) -> None:
    told = await started(store)
    quiet = await started(store)
    paused, asked = [await started(store, paused_at=NOON, wake_at=None) for _ in range(2)]
    foreign = await started(store, pin=Pin("other", 1, "f"))
    aside = await started(store)
    async with store.transaction() as tx:
        await tx.add_signals([signal(saga, "reply") for saga in (told, paused, foreign, asked)])
        await tx.add_signals([signal(aside, error="x"), signal(paused, error="x"), signal(asked, "resume")])
    async with store.transaction() as tx:
        assert set((await tx.lock_signalled([PIN], limit=10)).sagas) == {told.id, asked.id}
        assert not (await tx.lock_signalled([PIN], limit=0)).sagas
        assert not (await tx.lock_signalled([], limit=10)).sagas
    assert quiet.id != told.id


# -- events


def event(message_id: str = "m1", key: str = "42", *, keep_for: timedelta = HOUR) -> ReceivedEvent:
    return ReceivedEvent(message_id, "payment-captured", key, '{"amount":9}', keep_for)


async def test_an_event_received_again_is_not_kept_again(store: Any) -> None:
    async with store.transaction() as tx:
        assert len(await tx.add_events([event(key="42"), event(key="43"), event("m2")])) == 3
    async with store.transaction() as tx:
        assert len(await tx.add_events([event(key="42"), event("m3"), event("m2")])) == 1
        assert await tx.add_events([]) == []


async def test_kept_events_meet_every_step_that_waits_for_them(store: Any, clock: MovableClock) -> None:
    first, second = await started(store, wait()), await started(store, wait())
    await started(store, wait("other key"))
    await started(store, wait(wire_name="payment-failed"))
    await started(store, wait(status=StepStatus.SUCCEEDED))
    async with store.transaction() as tx:
        (event_id,) = await tx.add_events([event()])
        matches = await tx.event_matches(event_ids=[event_id])
    assert {match.saga_id for match in matches} == {first.id, second.id}
    assert {(match.event_id, match.key, match.body, match.arrived_at) for match in matches} == {
        (event_id, StepKey("AwaitingPayment"), '{"amount":9}', NOON)
    }
    async with store.transaction() as tx:
        assert [match.saga_id for match in await tx.event_matches(saga_ids=[second.id])] == [second.id]
        assert await tx.event_matches(event_ids=[uuid4()]) == []
        assert await tx.event_matches(event_ids=[]) == []
        assert await tx.event_matches(saga_ids=[]) == []
        assert len(await tx.event_matches(limit=1)) == 1


async def test_matches_come_oldest_event_first(store: Any) -> None:
    await started(store, wait())
    async with store.transaction() as tx:
        older = await tx.add_events([event("m9")])
        newer = await tx.add_events([event("m1")])
        assert [match.event_id for match in await tx.event_matches()] == [*older, *newer]


async def test_consumed_and_expired_events_match_nobody(store: Any, clock: MovableClock) -> None:
    saga = await started(store, wait())
    async with store.transaction() as tx:
        consumed, kept = sorted(await tx.add_events([event("m1"), event("m2")]))
        await tx.consume_events({consumed: saga.id})
        assert await tx.lock_events([consumed, kept, uuid4()]) == {kept}
        assert await tx.lock_events([]) == set()
        assert [match.event_id for match in await tx.event_matches()] == [kept]
    clock.move(HOUR)
    async with store.transaction() as tx:
        assert await tx.event_matches() == []


async def test_a_wait_that_is_over_matches_no_later_event(store: Any) -> None:
    saga = await started(store, wait())
    (record,) = saga.steps.values()
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([changing(saga, replace(record, status=StepStatus.SUCCEEDED, ended_at=NOON))])
        await tx.add_events([event()])
        assert await tx.event_matches() == []


# -- kept beside, and taken back together


async def test_whatever_a_transaction_wrote_goes_when_it_raises(store: Any) -> None:
    saga = await started(store, command(), wait(seq=2))
    with pytest.raises(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.lock([saga.id])
            await tx.save([replace(adding(saga, command("New", seq=3)), notes=(Note("late", "reply"),))])
            await tx.mark_sent([record.command_id for record in saga.steps.values() if record.command_id])
            await tx.add_signals([signal(saga)])
            await tx.add_events([event()])
            await tx.add_unmatched([UnmatchedMessage("m", "no such step", b"\xff", "{}", saga.id)])
            await tx.add_outgoing([outgoing()])
            await tx.add_audit([AuditEntry(saga.id, "cancel", "ann", "why", "running", "compensating")])
            raise ZeroDivisionError
    assert await load(store, saga.id) == saga
    async with store.transaction() as tx:
        assert await tx.pending_signals([saga.id]) == []
        assert await tx.event_matches() == []
        assert len(await tx.claim_unsent(limit=10, grace=SECOND)) == 1


def outgoing() -> Outgoing:
    return Outgoing(Envelope(str(uuid4()), b"{}", "order-placed"), to_queue("shop"))


async def test_what_is_kept_beside_sagas_can_be_written(store: Any) -> None:
    saga = await started(store)
    notes = (Note("late-reply", "came late", "ReservingCredit"), Note("odd", "kept whole", unusable=True))
    async with store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([Decision(saga, notes=notes)])
        await tx.add_unmatched([UnmatchedMessage("m", "no such step", b"\xff", "{}", saga.id)])
        await tx.add_unmatched([])
        await tx.add_outgoing([outgoing()])
        await tx.add_outgoing([])
        await tx.add_audit([AuditEntry(saga.id, "cancel", "ann", "why", "running", "", "no", uuid4())])
        await tx.add_audit([])


async def test_opening_again_after_closing_finds_everything(store: Any) -> None:
    saga = await started(store, command())
    await store.close()
    await store.close()
    await store.open()
    assert await load(store, saga.id) == saga


def test_an_error_of_the_author_is_not_transient_and_a_lost_race_is(store: Any) -> None:
    assert store.is_transient(ConcurrentUpdate(uuid4(), 1))
    assert not store.is_transient(ZeroDivisionError())


async def test_what_is_due_is_told_by_kind(store: Any, clock: MovableClock) -> None:
    saga = await started(store, command(send_after=NOON + 2 * HOUR), wake_at=NOON + HOUR)
    assert await store.due() == (False, False, False)

    clock.move(HOUR)
    assert await store.due() == (True, False, False)
    clock.move(HOUR)
    assert await store.due() == (True, False, True)
    async with store.transaction() as tx:
        await tx.add_signals([NewSignal(saga.id, "cancel", "{}")])
    assert await store.due() == (True, True, True)
