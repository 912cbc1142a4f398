"""Sagas that a process has at hand: no read, the same outcome, and never misled by what others do meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from messaging.envelope import FAILURE, RETRY
from orchestrator.at_hand import AtHand
from orchestrator.engine import Engine
from orchestrator.instance import Direction, SagaInstance, SagaStatus, StepKey, StepStatus
from orchestrator.memory import MemoryStore
from orchestrator.sender import Sender
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import CancelRequested, Decision
from orchestrator.store_records import CommandRef, Locked, NewSignal
from tests.unit.engine.bench import REPLIES, AwaitingPayment, BookingFlight, BookingHotel, StandingClock, Workbench

FLIGHT, UNDO = StepKey(BookingFlight.name), StepKey(BookingFlight.name, Direction.COMPENSATION)
SECOND = timedelta(seconds=1)


class CountingStore(MemoryStore):
    """Knows which attempts were read."""

    def __init__(self, clock: StandingClock) -> None:
        super().__init__(clock)
        self.read: list[UUID] = []

    async def read_commands(self, command_ids: Sequence[UUID]) -> tuple[Mapping[UUID, CommandRef], Locked] | None:
        self.read += command_ids
        return await super().read_commands(command_ids)


@pytest.fixture
async def bench() -> Workbench:
    bench = Workbench()
    bench.on_store(CountingStore(bench.clock))
    return await bench.open()


def read(bench: Workbench) -> list[UUID]:
    assert isinstance(bench.store, CountingStore)
    return bench.store.read


async def all_begun(bench: Workbench, sagas: int) -> list[UUID]:
    """Sagas whose first commands are with the broker, and not marked as sent yet."""
    ids = [await bench.start(number) for number in range(1, sagas + 1)]
    await bench.wake()
    await bench.publish()
    return ids


async def begun(bench: Workbench) -> UUID:
    (saga_id,) = await all_begun(bench, 1)
    return saga_id


async def test_the_answer_to_the_one_command_that_is_out_needs_no_read(bench: Workbench) -> None:
    saga_id = await begun(bench)

    await bench.engine.replies([bench.answer(bench.sent[-1])])

    assert read(bench) == []
    assert bench.saga(saga_id).steps[FLIGHT].status is StepStatus.SUCCEEDED


async def test_what_is_at_hand_is_what_would_be_read(bench: Workbench) -> None:
    """At each turn of a saga that is tried again, goes on after an event, is refused and undone."""
    compared = 0

    async def compare(saga_id: UUID) -> None:
        nonlocal compared
        records = bench.saga(saga_id).steps.values()
        out = [one.command_id for one in records if one.command_id and one.status is StepStatus.OUTSTANDING]
        kept = bench.engine._at_hand  # pyright: ignore[reportPrivateUsage] - what it holds is the point
        refs, locked = kept._found(out)  # pyright: ignore[reportPrivateUsage]
        if refs:
            compared += 1
            stored = await MemoryStore.read_commands(bench.store, out)
            assert stored == (refs, Locked(bench.clock.now(), locked.sagas))

    saga_id = await begun(bench)
    await compare(saga_id)
    for outcome, after in ((RETRY, SECOND * 60), ("success", SECOND)):
        bench.clock.advance(SECOND)
        await bench.engine.replies([bench.answer(bench.sent[-1], outcome)])
        await compare(saga_id)
        bench.clock.advance(after)
        await bench.engine.claim_unsent()
        await compare(saga_id)
        await bench.publish()
        await bench.engine.flush_marks()
        await compare(saga_id)
        await bench.wake()
        await compare(saga_id)
    await bench.engine.match_events(await bench.engine.keep_events([bench.event(1)]))
    await compare(saga_id)
    await bench.publish()
    await bench.engine.replies([bench.answer(bench.sent[-1], FAILURE)])
    await compare(saga_id)
    await bench.publish()
    await bench.engine.replies([bench.answer(bench.sent[-1])])

    assert bench.saga(saga_id).status is SagaStatus.COMPENSATED
    assert compared >= 4


async def test_what_somebody_else_did_meanwhile_counts(bench: Workbench) -> None:
    saga_id, untouched = await all_begun(bench, 2)
    replies = [bench.answer(command) for command in bench.sent]
    other = bench.another_process()
    async with bench.store.transaction() as tx:
        row = signal_to_row(CancelRequested("not needed any more", "ann"))
        assert row is not None
        await tx.add_signals([NewSignal(saga_id, *row)])
    await other.engine.signals(10)

    await bench.engine.replies([*replies, replies[0]])

    assert bench.saga(saga_id).status is SagaStatus.COMPENSATING
    assert bench.saga(saga_id).steps[UNDO].status is StepStatus.OUTSTANDING
    assert bench.saga(untouched).steps[FLIGHT].status is StepStatus.SUCCEEDED
    assert set(read(bench)) == {one.command_id for one in replies}  # once one was another, all were looked at again


async def test_an_answer_that_another_process_has_decided_already_changes_nothing(bench: Workbench) -> None:
    saga_id = await begun(bench)
    reply, other = bench.answer(bench.sent[-1]), bench.another_process()
    await other.engine.replies([reply])
    once = bench.saga(saga_id)

    await bench.engine.replies([reply])

    assert bench.saga(saga_id).steps == once.steps
    assert bench.saga(saga_id).state.count("flight ") == 1


async def test_what_is_not_at_hand_is_read_beside_what_is(bench: Workbench) -> None:
    here = await begun(bench)
    other = bench.another_process()
    elsewhere = await other.start(2)
    await other.wake()
    await other.publish()
    ours, theirs = bench.sent

    await bench.engine.replies([bench.answer(ours), bench.answer(theirs), bench.answer(theirs)])

    assert set(read(bench)) == {bench.saga(elsewhere).steps[FLIGHT].command_id}
    for saga_id in (here, elsewhere):
        assert bench.saga(saga_id).steps[FLIGHT].status is StepStatus.SUCCEEDED


async def test_a_saga_that_waits_for_an_event_or_has_ended_is_not_kept(bench: Workbench) -> None:
    saga_id = await begun(bench)
    await bench.engine.replies([bench.answer(bench.sent[-1])])
    assert bench.saga(saga_id).current_step == AwaitingPayment.name

    await bench.engine.replies([bench.answer(bench.sent[-1])])

    assert read(bench) == [bench.saga(saga_id).steps[FLIGHT].command_id]


class Watch:
    """Seconds that pass only when they are told to."""

    at = 0.0

    def __call__(self) -> float:
        return self.at


async def test_only_so_much_is_kept_and_what_was_written_last(bench: Workbench) -> None:
    saga = bench.store.saga(await begun(bench))
    large = AtHand(bench.store, 50_000, bench.clock)
    written = [with_command(saga, uuid4(), state=f'{{"number":1,"log":"{"x" * 10_000}"}}') for _ in range(6)]
    large.keep(written)

    kept = [large.forget([command_of(one)]) for one in written]
    assert kept == [False, False, True, True, True, True]
    alone = with_command(saga, uuid4(), state=f'"{"x" * 60_000}"')
    large.keep([alone])
    assert not large.forget([command_of(alone)])


async def test_nothing_is_kept_for_long(bench: Workbench) -> None:
    saga, watch = bench.store.saga(await begun(bench)), Watch()
    sagas = AtHand(bench.store, 1_000_000, bench.clock, seconds=watch)
    old, new = with_command(saga, uuid4()), with_command(saga, uuid4())
    sagas.keep([old])
    watch.at = 61.0
    sagas.keep([new])

    assert [sagas.forget([command_of(one)]) for one in (old, new)] == [False, True]


async def test_a_command_that_could_not_be_sent_or_was_marked_is_read_again(bench: Workbench) -> None:
    bench.sender = Sender(bench.transport, REPLIES, timeout=SECOND, now=bench.clock.now)
    sagas = AtHand(bench.store, 1_000_000, bench.clock)
    bench.engine = Engine(bench.registry, bench.store, bench.sender, at_hand=sagas)
    saga_id = await begun(bench)
    await bench.engine.flush_marks()
    sent_at = bench.saga(saga_id).steps[FLIGHT].sent_at
    assert sent_at is not None
    bench.clock.advance(SECOND)

    await bench.engine.replies([bench.answer(bench.sent[-1])])

    assert bench.saga(saga_id).steps[FLIGHT].sent_at == sent_at
    assert len(read(bench)) == 1


async def test_without_a_clock_the_databases_instant_goes_on_for_a_while_and_is_read_again_then(
    bench: Workbench,
) -> None:
    watch, now = Watch(), bench.clock.now()
    kept = AtHand(bench.store, 1_000_000, seconds=watch)
    saga = bench.store.saga(await begun(bench))
    command_id = saga.steps[FLIGHT].command_id
    assert command_id is not None
    written = replace(with_command(saga, command_id), instance=replace(saga, revision=saga.revision - 1))
    kept.keep([written])
    assert await instant(kept, command_id) == "read"  # no instant is known: the database is asked for both
    watch.at = 1.0
    kept.saw(now, asked=0.7)  # the answer took too long to be of now
    assert await instant(kept, command_id) == "read"

    watch.at = 1.1
    assert await instant(kept, command_id) == now + timedelta(seconds=0.1)
    a_little_later = now + timedelta(seconds=0.25)
    kept.keep([replace(written, instance=replace(written.instance, updated_at=a_little_later))])
    assert await instant(kept, command_id) == a_little_later  # never before what the saga has seen
    watch.at = 1.25
    assert await instant(kept, command_id) == "read"


async def test_a_saga_that_was_written_while_a_clock_was_wrong_does_not_take_others_along(bench: Workbench) -> None:
    saga, now, watch = bench.store.saga(await begun(bench)), bench.clock.now(), Watch()
    kept = AtHand(bench.store, 1_000_000, seconds=watch)
    ahead, other = with_command(saga, uuid4(), updated_at=now + 3600 * SECOND), with_command(saga, uuid4())
    kept.keep([ahead, other])
    kept.saw(now, asked=watch.at)

    found = await kept.read_commands([command_of(ahead), command_of(other)])

    assert found is not None
    assert set(found[0]) == {command_of(other)}
    assert found[1].now == now
    assert read(bench) == [command_of(ahead)]


async def instant(kept: AtHand, command_id: UUID) -> object:
    store = kept._store  # pyright: ignore[reportPrivateUsage]
    assert isinstance(store, CountingStore)
    before = len(store.read)
    found = await kept.read_commands([command_id])
    assert found is not None
    return "read" if len(store.read) > before else found[1].now


async def test_sagas_with_more_than_one_thing_out_or_with_items_are_not_kept(bench: Workbench) -> None:
    saga = bench.store.saga(await begun(bench))
    flight = saga.steps[FLIGHT]
    assert flight.command_id is not None
    hotel = replace(flight, key=StepKey(BookingHotel.name), command_id=uuid4())
    item = replace(hotel, key=StepKey("Item", Direction.ACTION, "7"), status=StepStatus.SUCCEEDED)

    def kept(changed: SagaInstance, *written: StepKey) -> bool:
        sagas = AtHand(bench.store, 1_000_000, bench.clock)
        sagas.keep([Decision(changed, changed=written)])
        return sagas.forget([flight.command_id] if flight.command_id else [])

    assert kept(saga, FLIGHT)
    assert not kept(saga)  # it was written before, and may have been marked since
    assert not kept(replace(saga, steps={FLIGHT: flight, hotel.key: hotel}), FLIGHT)
    assert not kept(replace(saga, steps={FLIGHT: flight, item.key: item}), FLIGHT)
    unsent = replace(flight, send_attempts=0)  # somebody else may send it
    assert not kept(replace(saga, steps={FLIGHT: unsent}), FLIGHT)
    assert not kept(replace(saga, paused_at=bench.clock.now()), FLIGHT)
    assert not kept(replace(saga, status=SagaStatus.BLOCKED), FLIGHT)


def with_command(saga: SagaInstance, command_id: UUID, **changes: Any) -> Decision:
    """A saga like this one, just written with that command."""
    flight = replace(saga.steps[FLIGHT], command_id=command_id)
    return Decision(replace(saga, id=uuid4(), steps={FLIGHT: flight}, **changes), changed=(FLIGHT,))


def command_of(written: Decision) -> UUID:
    command_id = written.steps[FLIGHT].command_id
    assert command_id is not None
    return command_id
