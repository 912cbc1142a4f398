"""Replies decided on sagas that are read and not locked: what if somebody is faster, and what needs a transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from messaging.envelope import Envelope
from orchestrator.engine import Engine
from orchestrator.instance import SagaStatus, StepKey, StepStatus
from orchestrator.memory import MemoryStore, MemoryTransaction
from orchestrator.sender import Sender
from orchestrator.signals import Decision
from tests.unit.engine.bench import REPLIES, BookingFlight, Workbench

SECOND = timedelta(seconds=1)
FLIGHT = StepKey(BookingFlight.name)


class MeddledStore(MemoryStore):
    """Somebody does something between reading and writing, once."""

    meddle: Callable[[], Awaitable[None]] | None = None

    async def write(self, decisions: Sequence[Decision], now: datetime) -> bool:
        if self.meddle is not None:
            meddle, self.meddle = self.meddle, None
            await meddle()
        return await super().write(decisions, now)


@pytest.fixture
async def bench() -> Workbench:
    bench = Workbench(at_hand=0)
    bench.on_store(MeddledStore(bench.clock))
    return await bench.open()


async def test_a_reply_that_two_processes_take_is_decided_once_whoever_writes_first(bench: Workbench) -> None:
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()
    reply, other = bench.answer(bench.sent[-1]), bench.another_process()
    assert isinstance(bench.store, MeddledStore)
    bench.store.meddle = lambda: other.engine.replies([reply])

    await bench.engine.replies([reply])

    saga = bench.saga(saga_id)
    assert saga.steps[FLIGHT].status is StepStatus.SUCCEEDED
    assert saga.state.count("flight ") == 1


async def test_a_reply_is_decided_on_what_its_saga_has_become_meanwhile(bench: Workbench) -> None:
    saga_id, untouched = await bench.start(1), await bench.start(2)
    await bench.wake()
    await bench.publish()
    await bench.engine.flush_marks()
    replies = [bench.answer(command) for command in bench.sent]

    async def pass_the_deadline() -> None:
        bench.clock.advance(timedelta(minutes=1))
        await bench.another_process().wake()

    assert isinstance(bench.store, MeddledStore)
    bench.store.meddle = pass_the_deadline

    await bench.engine.replies(replies)

    for one in (saga_id, untouched):
        assert bench.saga(one).steps[FLIGHT].unanswered == 1
        assert bench.saga(one).steps[FLIGHT].status is StepStatus.SUCCEEDED
        assert bench.saga(one).status is SagaStatus.RUNNING


async def test_answers_that_fit_need_no_transaction_and_those_that_do_not_are_put_aside(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await bench.start(1)
    await bench.wake()
    second = await bench.start(2)
    await bench.wake()
    await bench.publish()
    one, two = [bench.answer(command) for command in bench.sent]
    unusable = bench.answer(bench.sent[1], body=b"[]")
    locked: list[int] = []
    lock_commands = MemoryTransaction.lock_commands

    async def counted(self: MemoryTransaction, ids: Sequence[object]) -> object:
        locked.append(len(ids))
        return await lock_commands(self, ids)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryTransaction, "lock_commands", counted)

    await bench.engine.replies([one, unusable, two])

    assert locked == [3, 2]  # all of them are read; what concerns the second saga is decided under its lock
    assert len(bench.store.tables.unmatched) == 1
    assert bench.saga(first).steps[FLIGHT].status is StepStatus.SUCCEEDED
    assert bench.saga(second).steps[FLIGHT].status is StepStatus.SUCCEEDED


async def test_a_confirmed_command_is_marked_only_if_its_answer_does_not_come_soon(bench: Workbench) -> None:
    bench.sender = Sender(bench.transport, REPLIES, timeout=SECOND, now=bench.clock.now, marks_after=SECOND)
    bench.engine = Engine(bench.registry, bench.store, bench.sender)
    answered = await bench.start(1)
    await bench.wake()
    silent = await bench.start(2)
    await bench.wake()
    await bench.publish()
    await bench.engine.replies([bench.answer(bench.sent[0])])
    await bench.engine.flush_marks()
    assert bench.saga(answered).steps[FLIGHT].sent_at is not None
    assert bench.saga(silent).steps[FLIGHT].sent_at is None

    bench.clock.advance(SECOND)
    assert bench.sender.marks() == [bench.saga(silent).steps[FLIGHT].command_id]


async def test_a_deadline_finds_a_mark_that_is_written_by_the_very_transaction(bench: Workbench) -> None:
    bench.sender = Sender(bench.transport, REPLIES, timeout=SECOND, now=bench.clock.now, marks_after=SECOND)
    bench.engine = Engine(bench.registry, bench.store, bench.sender)
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()

    bench.clock.advance(BookingFlight.timeout)
    await bench.wake()

    assert bench.saga(saga_id).steps[FLIGHT].deadline == bench.clock.now() + BookingFlight.timeout


async def test_replies_that_need_no_lock_are_told_once_however_often_the_others_are_tried(bench: Workbench) -> None:
    first = await bench.start(1)
    await bench.wake()
    await bench.publish()
    stranger = Envelope("x", b"{}", correlation_id=str(uuid4()))
    good, unknown = bench.answer(bench.sent[0]), bench.answer(replace(bench.sent[0], envelope=stranger))

    left = await bench.engine.unlocked([good, unknown])
    await bench.engine.locked(left)
    await bench.engine.locked(left)

    assert left == [unknown]
    assert bench.saga(first).revision == 2
    assert not bench.store.tables.history


async def test_a_process_that_ends_marks_at_once_what_was_confirmed(bench: Workbench) -> None:
    bench.sender = Sender(bench.transport, REPLIES, timeout=SECOND, now=bench.clock.now, marks_after=SECOND)
    bench.engine = Engine(bench.registry, bench.store, bench.sender)
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()

    bench.sender.hurry()
    await bench.engine.flush_marks()

    assert bench.saga(saga_id).steps[FLIGHT].sent_at is not None


async def test_a_deadline_finds_a_command_sent_that_was_confirmed_and_is_not_marked_yet(bench: Workbench) -> None:
    bench.sender = Sender(bench.transport, REPLIES, timeout=SECOND, now=bench.clock.now, marks_after=60 * SECOND)
    bench.engine = Engine(bench.registry, bench.store, bench.sender)
    saga_id = await bench.start(1)
    await bench.wake()
    await bench.publish()

    bench.clock.advance(10 * SECOND)
    await bench.wake()

    record = bench.saga(saga_id).steps[FLIGHT]
    assert (record.send_after, record.sent_at) == (None, bench.clock.now())
    assert record.deadline == bench.clock.now() + BookingFlight.timeout
    bench.clock.advance(10 * SECOND)
    await bench.wake()
    assert bench.saga(saga_id).steps[FLIGHT].unanswered == 1
