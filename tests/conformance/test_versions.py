"""Sagas of several versions on every store: kept for who has them, blocked when nobody has, and upgraded."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator import Saga
from orchestrator.instance import BlockedReason, Pin, SagaStatus, StepStatus
from orchestrator.registry import pin_of
from orchestrator.signals import CancelRequested, PauseRequested, ResumeRequested
from orchestrator.workers import Worker, this_process
from tests.conformance.stores import PSYCOPG, SECOND, MovableClock, make_store, opened, sqlite_url
from tests.conformance.versions import (
    MINUTE,
    BookTripV1,
    BookTripV2,
    BookTripV3,
    BookTripV4,
    BookTripV5,
    Car,
    Flight,
    Hotel,
    Journey,
    Paying,
    Process,
    SellJourney,
    SellJourneyNow,
)


class Deployment:
    """A store, and processes on it."""

    def __init__(self, store: Any, clock: MovableClock) -> None:
        self.store, self.clock = store, clock

    def process(self, *sagas: type[Saga[Any]]) -> Process:
        return Process(self.store, self.clock, sagas)

    async def announce(self, worker: Worker) -> list[Worker]:
        async with self.store.transaction() as tx:
            return await tx.announce(worker, dead_after=MINUTE)  # type: ignore[no-any-return]


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Deployment]:
    where, clock = "", MovableClock()
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Deployment(store, clock)


# -- who has what


async def test_processes_announce_what_they_have_and_are_forgotten_when_they_are_silent(
    deployment: Deployment,
) -> None:
    first, second = this_process([pin_of(BookTripV1)]), this_process([pin_of(BookTripV2), Pin("other", 1, "f")])
    assert await deployment.announce(first) == [first]
    deployment.clock.move(40 * SECOND)
    assert await deployment.announce(second) == [first, second]

    deployment.clock.move(30 * SECOND)

    assert await deployment.announce(second) == [second]
    assert await deployment.announce(first) == [first, second]


async def test_a_reply_to_a_version_not_known_here_is_kept_for_a_process_that_has_it(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()
    before = await old.saga(saga_id)

    await new.take_answer(saga_id, Flight)

    kept = await new.saga(saga_id)
    assert replace(kept, wake_at=before.wake_at, revision=before.revision) == before
    assert kept.wake_at == deployment.clock.now()
    assert await new.pending(saga_id) == ["reply"]
    await old.settle()
    assert (await old.saga(saga_id)).current_step == "Hotel"


async def test_a_reply_to_a_paused_saga_of_another_version_is_kept_and_wakes_it_not(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()
    await old.asked(saga_id, PauseRequested("a moment"))

    await new.take_answer(saga_id, Flight)

    assert (await new.saga(saga_id)).wake_at is None
    await old.asked(saga_id, ResumeRequested("go on"))
    assert (await old.saga(saga_id)).current_step == "Hotel"


# -- nobody has it


async def test_a_saga_is_blocked_once_it_was_due_for_a_minute_and_nobody_has_its_version(
    deployment: Deployment,
) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.keeper.beat()
    await old.settle()
    await new.keeper.beat()
    await new.take_answer(saga_id, Flight)
    before = await new.saga(saga_id)

    deployment.clock.move(59 * SECOND)
    await new.keeper.beat()
    assert (await new.saga(saga_id)).status is SagaStatus.RUNNING
    deployment.clock.move(2 * SECOND)
    await new.keeper.beat()

    blocked = await new.saga(saga_id)
    assert (blocked.status, blocked.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.NEEDS_VERSION)
    assert (blocked.blocked_from, blocked.wake_at) == (SagaStatus.RUNNING, None)
    assert (blocked.state, blocked.steps, blocked.current_step) == (before.state, before.steps, before.current_step)


async def test_a_saga_is_not_blocked_while_a_process_that_has_its_version_is_heard_of(deployment: Deployment) -> None:
    busy, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await busy.start(BookTripV1)
    await new.keeper.beat()

    for _ in range(10):
        deployment.clock.move(30 * SECOND)
        await busy.keeper.beat()
        await new.keeper.beat()
        assert (await new.saga(saga_id)).status is SagaStatus.RUNNING


async def test_a_process_that_has_just_begun_blocks_nothing(deployment: Deployment) -> None:
    new = deployment.process(BookTripV2)
    saga_id = await new.start(BookTripV1)
    deployment.clock.move(60 * MINUTE)

    await new.keeper.beat()

    assert (await new.saga(saga_id)).status is SagaStatus.RUNNING


async def test_what_waits_for_something_else_is_not_blocked(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    waiting, paused, ended = [await old.start(BookTripV1) for _ in range(3)]
    await old.settle()
    await old.asked(paused, PauseRequested("a moment"))
    await old.asked(ended, CancelRequested("not wanted"))
    await old.take_answer(ended, Flight)
    await old.take_answer(ended, Flight, undo=True)
    await new.keeper.beat()
    deployment.clock.move(2 * MINUTE)

    await new.keeper.beat()

    statuses = [(await new.saga(one)).status for one in (waiting, paused, ended)]
    assert statuses == [SagaStatus.RUNNING, SagaStatus.RUNNING, SagaStatus.COMPENSATED]


async def test_a_process_that_has_the_version_lifts_the_block_and_applies_what_was_kept(
    deployment: Deployment,
) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()
    await new.keeper.beat()
    await new.take_answer(saga_id, Flight)
    deployment.clock.move(2 * MINUTE)
    await new.keeper.beat()
    blocked = await new.saga(saga_id)
    assert blocked.status is SagaStatus.BLOCKED
    deployment.clock.move(60 * MINUTE)

    again = deployment.process(BookTripV1)
    await again.keeper.beat()
    await again.settle()

    saga = await again.saga(saga_id)
    assert (saga.status, saga.current_step) == (SagaStatus.RUNNING, "Hotel")
    await again.take_answer(saga_id, Hotel)
    assert (await again.saga(saga_id)).status is SagaStatus.COMPLETED


async def test_deadlines_move_by_the_time_that_a_version_was_missing(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()
    begun = deployment.clock.now()
    await new.keeper.beat()
    deployment.clock.move(12 * MINUTE)
    await new.keeper.beat()
    assert (await new.saga(saga_id)).status is SagaStatus.BLOCKED
    deployment.clock.move(60 * MINUTE)

    await old.keeper.beat()

    (record,) = (await old.saga(saga_id)).steps.values()
    assert record.deadline == begun + 70 * MINUTE


# -- nobody has a child's


async def ordered_back(deployment: Deployment) -> tuple[Process, UUID, UUID]:
    """A process that has a journey's saga and not its trip's; the trip completed, and is ordered back."""
    both = deployment.process(SellJourney)
    journey = await both.start(SellJourney, Journey())
    await both.settle()
    (booking,) = (await both.saga(journey)).steps.values()
    trip = UUID(booking.awaited_key)
    for step in (Flight, Hotel):
        await both.take_answer(trip, step)
    await both.asked(journey, CancelRequested("not wanted"))
    without = deployment.process(SellJourneyNow)
    await without.keeper.beat()
    await without.take_answer(journey, Paying)
    await without.take_answer(journey, Paying, undo=True)
    return without, journey, trip


async def test_a_completed_child_that_is_ordered_back_is_blocked_when_nobody_has_its_version(
    deployment: Deployment,
) -> None:
    without, journey, trip = await ordered_back(deployment)
    before = await without.saga(trip)
    assert (before.status, await without.pending(trip)) == (SagaStatus.COMPLETED, ["child_order"])

    deployment.clock.move(59 * SECOND)
    await without.keeper.beat()
    assert (await without.saga(trip)).status is SagaStatus.COMPLETED
    deployment.clock.move(2 * SECOND)
    await without.keeper.beat()

    blocked = await without.saga(trip)
    assert (blocked.status, blocked.blocked_reason) == (SagaStatus.BLOCKED, BlockedReason.NEEDS_VERSION)
    assert (blocked.blocked_from, blocked.wake_at) == (SagaStatus.COMPLETED, None)
    assert (blocked.state, blocked.steps) == (before.state, before.steps)
    assert (await without.saga(journey)).status is SagaStatus.COMPENSATING


@pytest.mark.parametrize("beats_first", [True, False])
async def test_a_child_that_was_blocked_so_goes_back_once_somebody_has_its_version(
    deployment: Deployment, beats_first: bool
) -> None:
    without, journey, trip = await ordered_back(deployment)
    deployment.clock.move(2 * MINUTE)
    await without.keeper.beat()
    assert (await without.saga(trip)).status is SagaStatus.BLOCKED

    both = deployment.process(SellJourney)
    if beats_first:
        await both.keeper.beat()
        assert (await both.saga(trip)).status is SagaStatus.COMPLETED
    await both.settle()
    for step in (Hotel, Flight):
        await both.take_answer(trip, step, undo=True)

    assert [(await both.saga(one)).status for one in (trip, journey)] == [SagaStatus.COMPENSATED] * 2


async def test_a_child_that_was_blocked_so_may_be_upgraded(deployment: Deployment) -> None:
    without, _, trip = await ordered_back(deployment)
    deployment.clock.move(2 * MINUTE)
    await without.keeper.beat()

    await without.upgraded(trip, BookTripV2)

    saga = await without.saga(trip)
    assert (saga.status, saga.pin) == (SagaStatus.COMPENSATING, pin_of(BookTripV2))


# -- both alive


async def test_both_versions_alive_on_one_queue_lose_no_reply_and_block_no_saga(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    trips = [(await old.start(saga), saga) for _ in range(4) for saga in (BookTripV1, BookTripV2)]
    for process in (old, new):
        await process.keeper.beat()
        await process.settle()

    for step_of in range(4):
        for number, (saga_id, saga) in enumerate(trips):
            steps = [type(step) for step in saga.steps]
            if step_of < len(steps):
                taker = (old, new)[(number + step_of) % 2]
                await taker.take_answer(saga_id, steps[step_of])  # type: ignore[arg-type]
        for process in (new, old):
            await process.settle()
            await process.keeper.beat()
        deployment.clock.move(30 * SECOND)

    ended = [await old.saga(saga_id) for saga_id, _ in trips]
    assert {saga.status for saga in ended} == {SagaStatus.COMPLETED}
    assert sorted(saga.pin.version for saga in ended) == [1] * 4 + [2] * 4


async def test_an_event_that_only_another_release_can_read_is_kept_for_it(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV1, BookTripV4)
    saga_id = await new.start(BookTripV4)
    await new.settle()
    await new.keeper.beat()

    for _ in range(2):
        await old.take_event()
    assert await old.keeper.read_events() == 0
    assert (await old.saga(saga_id)).current_step == "AwaitingPayment"
    assert await new.keeper.read_events() == 1

    assert (await new.saga(saga_id)).current_step == "Flight"
    await old.take_event()
    assert [await new.keeper.read_events() for _ in range(2)] == [1, 0]


async def test_an_event_for_a_version_not_known_here_is_kept_with_the_saga_once(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV4), deployment.process(BookTripV5)
    saga_id = await old.start(BookTripV4)
    await old.settle()

    await new.take_event("paid-1")
    await new.take_event("paid-2")

    assert await new.pending(saga_id) == ["event"]
    assert (await new.saga(saga_id)).wake_at == deployment.clock.now()
    await old.settle()
    assert (await old.saga(saga_id)).current_step == "Flight"
    async with deployment.store.transaction() as tx:
        assert await tx.event_matches() == []


async def test_an_event_that_nobody_can_read_is_put_aside(deployment: Deployment) -> None:
    old, gone = deployment.process(BookTripV1), deployment.process(BookTripV4)
    await gone.keeper.beat()
    deployment.clock.move(2 * MINUTE)

    await old.take_event()

    assert await gone.keeper.read_events() == 0


async def test_one_process_runs_both_versions_side_by_side(deployment: Deployment) -> None:
    process = deployment.process(BookTripV2, BookTripV1)
    old, new = await process.start(BookTripV1), await process.start(BookTripV2)
    await process.settle()

    assert [(await process.saga(one)).current_step for one in (old, new)] == ["Flight", "Insurance"]


# -- upgraded


async def test_an_upgraded_saga_goes_on_with_the_new_steps_and_runs_none_twice(deployment: Deployment) -> None:
    process = deployment.process(BookTripV1, BookTripV2)
    saga_id = await process.start(BookTripV1)
    await process.settle()
    before = await process.saga(saga_id)

    await process.upgraded(saga_id, BookTripV2)

    saga = await process.saga(saga_id)
    assert saga.pin == pin_of(BookTripV2)
    assert saga.steps == before.steps
    assert saga.state == '{"number":107,"booked":[]}'
    for step in (Flight, Car, Hotel):
        await process.take_answer(saga_id, step)
    saga = await process.saga(saga_id)
    assert saga.status is SagaStatus.COMPLETED
    assert {key.step for key in saga.steps} == {"Flight", "Car", "Hotel"}


async def test_a_saga_whose_version_nobody_has_is_upgraded_out_of_its_block(deployment: Deployment) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()
    await new.keeper.beat()
    await new.take_answer(saga_id, Flight)
    deployment.clock.move(2 * MINUTE)
    await new.keeper.beat()
    assert (await new.saga(saga_id)).blocked_reason is BlockedReason.NEEDS_VERSION

    await new.upgraded(saga_id, BookTripV2)

    saga = await new.saga(saga_id)
    assert (saga.status, saga.current_step) == (SagaStatus.RUNNING, "Car")


async def test_an_upgraded_saga_undoes_what_ran_under_the_old_version(deployment: Deployment) -> None:
    process = deployment.process(BookTripV1, BookTripV2)
    saga_id = await process.start(BookTripV1)
    await process.settle()
    await process.take_answer(saga_id, Flight)
    await process.upgraded(saga_id, BookTripV2)

    await process.asked(saga_id, CancelRequested("not wanted"))
    await process.take_answer(saga_id, Hotel)
    for step in (Hotel, Flight):
        await process.take_answer(saga_id, step, undo=True)

    saga = await process.saga(saga_id)
    assert saga.status is SagaStatus.COMPENSATED
    assert {(key.step, record.status) for key, record in saga.steps.items()} == {
        ("Flight", StepStatus.SUCCEEDED),
        ("Hotel", StepStatus.SUCCEEDED),
    }


async def test_a_paused_saga_is_upgraded_where_it_stands(deployment: Deployment) -> None:
    process = deployment.process(BookTripV1, BookTripV2)
    saga_id = await process.start(BookTripV1)
    await process.settle()
    await process.asked(saga_id, PauseRequested("a moment"))

    await process.upgraded(saga_id, BookTripV2)

    saga = await process.saga(saga_id)
    assert (saga.pin, saga.wake_at) == (pin_of(BookTripV2), None)


async def test_a_request_for_a_version_not_known_here_waits_for_a_process_that_has_it(
    deployment: Deployment,
) -> None:
    old, new = deployment.process(BookTripV1), deployment.process(BookTripV2)
    saga_id = await old.start(BookTripV1)
    await old.settle()

    await old.upgraded(saga_id, BookTripV2)
    await old.take_answer(saga_id, Flight)
    await old.asked(saga_id, PauseRequested("a moment"))

    assert (await old.saga(saga_id)).pin == pin_of(BookTripV1)
    assert await old.pending(saga_id) == ["upgrade:2"]
    assert await new.keeper.upgrade() == 1
    assert (await new.saga(saga_id)).pin == pin_of(BookTripV2)


async def test_an_upgrade_that_does_not_fit_is_refused_and_changes_nothing(deployment: Deployment) -> None:
    process = deployment.process(BookTripV1, BookTripV3)
    saga_id = await process.start(BookTripV1)
    await process.settle()
    before = await process.saga(saga_id)

    await process.upgraded(saga_id, BookTripV3)
    await process.upgraded(saga_id, BookTripV3, fingerprint="other")

    assert await process.saga(saga_id) == before
    assert await process.pending(saga_id) == []
