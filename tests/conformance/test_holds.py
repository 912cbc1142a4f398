"""Definitions that are held, on every store: what has not begun waits, and what has begun goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from orchestrator.holds import Hold
from orchestrator.instance import SagaStatus
from orchestrator.signals import CancelRequested, PauseRequested, ResumeRequested
from tests.conformance.stores import HOUR, PSYCOPG, SECOND, MovableClock, make_store, opened, sqlite_url
from tests.conformance.test_versions import Deployment
from tests.conformance.versions import BookTripV1, BookTripV2, Flight, Journey, SellJourney


class HurriedTrip(BookTripV1):
    """It must end within ten minutes."""

    name = "hurried-trip"
    deadline = timedelta(minutes=10)


class Shop(Deployment):
    """A deployment whose definitions may be held."""

    async def hold(self, saga: str = "book-trip", version: int | None = None) -> Hold | None:
        async with self.store.transaction() as tx:
            return await tx.hold(saga, version, reason="they fail", by="ann")  # type: ignore[no-any-return]

    async def release(self, saga: str = "book-trip", version: int | None = None) -> list[Hold]:
        async with self.store.transaction() as tx:
            released: list[Hold] = await tx.release(saga, version, reason="mended", by="bob")
        async with self.store.transaction() as tx:
            assert await tx.wake_new(saga, version) is None
        return released

    async def held(self) -> list[Hold]:
        async with self.store.transaction() as tx:
            return await tx.holds()  # type: ignore[no-any-return]


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def shop(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Shop]:
    where, clock = "", MovableClock()
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Shop(store, clock)


# -- holding and releasing


async def test_what_is_held_is_told_until_it_is_released(shop: Shop) -> None:
    one = await shop.hold(version=1)
    shop.clock.move(SECOND)
    whole = await shop.hold("sell-journey")

    assert one is not None and whole is not None
    assert (one.saga, one.version, one.by, one.reason) == ("book-trip", 1, "ann", "they fail")
    assert one.held_at == whole.held_at - SECOND
    assert await shop.held() == [one, whole]
    assert await shop.release(version=1) == [one]
    assert await shop.held() == [whole]


async def test_what_is_held_already_is_not_held_twice(shop: Shop) -> None:
    assert await shop.hold(version=1)
    assert await shop.hold(version=1) is None
    assert await shop.hold() and await shop.hold() is None

    assert len(await shop.release()) == 2
    assert await shop.release() == []
    assert await shop.hold(version=1)


async def test_a_version_alone_is_not_released_from_a_hold_of_all(shop: Shop) -> None:
    await shop.hold()
    assert await shop.release(version=1) == []
    assert len(await shop.held()) == 1


async def test_it_is_known_how_long_ago_a_hold_was_released(shop: Shop) -> None:
    await shop.hold()
    await shop.release()
    released_at = shop.clock.now()

    async with shop.store.transaction() as tx:
        assert await tx.released_since("book-trip", 1, released_at)
        assert not await tx.released_since("book-trip", 1, released_at + SECOND)
        assert not await tx.released_since("sell-journey", 1, released_at)


# -- sagas


async def test_a_saga_of_a_held_version_does_not_begin_until_it_is_released(shop: Shop) -> None:
    process = shop.process(BookTripV1)
    await shop.hold(version=1)
    saga_id = await process.start(BookTripV1)
    before = await process.saga(saga_id)

    await process.settle()
    kept = await process.saga(saga_id)
    assert (kept.seq, kept.status, kept.wake_at) == (0, SagaStatus.RUNNING, shop.clock.now() + HOUR)
    assert (kept.revision, kept.updated_at) == (before.revision, before.updated_at)
    assert not any(await shop.store.due())

    await shop.release(version=1)
    await process.settle()
    assert (await process.saga(saga_id)).current_step == "Flight"


async def test_a_saga_that_has_begun_goes_on_and_can_be_undone(shop: Shop) -> None:
    process = shop.process(BookTripV1)
    saga_id = await process.start(BookTripV1)
    await process.settle()
    await shop.hold()
    shop.clock.move(SECOND)

    await process.take_answer(saga_id, Flight)
    assert (await process.saga(saga_id)).current_step == "Hotel"
    await process.asked(saga_id, CancelRequested("no more"))
    assert (await process.saga(saga_id)).status is SagaStatus.COMPENSATING


async def test_a_hold_of_one_version_lets_the_others_begin(shop: Shop) -> None:
    process = shop.process(BookTripV1, BookTripV2)
    await shop.hold(version=1)
    old, new = await process.start(BookTripV1), await process.start(BookTripV2)

    await process.settle()

    assert (await process.saga(old)).seq == 0
    assert (await process.saga(new)).seq > 0


async def test_an_engine_heeds_a_hold_within_a_second_and_a_release_at_once(shop: Shop) -> None:
    first, second = shop.process(BookTripV1), shop.process(BookTripV1)
    for process in (first, second):
        await process.start(BookTripV1)
        await process.settle()
    await shop.hold()
    shop.clock.move(SECOND)

    for process in (first, second):
        saga_id = await process.start(BookTripV1)
        await process.settle()
        assert (await process.saga(saga_id)).seq == 0

    await shop.release()
    late = await first.start(BookTripV1)
    for process in (second, first):
        await process.settle()
    assert [(await first.saga(one)).current_step for one in (saga_id, late)] == ["Flight", "Flight"]


async def test_a_child_begins_although_its_definition_is_held(shop: Shop) -> None:
    process = shop.process(SellJourney, BookTripV1)
    journey = await process.start(SellJourney, Journey())
    await shop.hold("book-trip")

    await process.settle()

    (booking,) = (await process.saga(journey)).steps.values()
    assert (await process.saga(UUID(booking.awaited_key))).current_step == "Flight"


async def test_a_parent_of_a_held_definition_does_not_begin_and_starts_no_child(shop: Shop) -> None:
    process = shop.process(SellJourney, BookTripV1)
    await shop.hold("sell-journey")
    journey = await process.start(SellJourney, Journey())

    await process.settle()

    assert (await process.saga(journey)).seq == 0


async def test_a_held_saga_may_be_cancelled_and_ends_without_having_begun(shop: Shop) -> None:
    process = shop.process(BookTripV1)
    await shop.hold()
    saga_id = await process.start(BookTripV1)
    await process.settle()

    await process.asked(saga_id, CancelRequested("no more"))

    ended = await process.saga(saga_id)
    assert (ended.status, ended.steps) == (SagaStatus.COMPENSATED, {})


async def test_a_held_saga_that_was_paused_and_is_resumed_is_still_held(shop: Shop) -> None:
    process = shop.process(BookTripV1)
    await shop.hold()
    saga_id = await process.start(BookTripV1)
    await process.settle()
    await process.asked(saga_id, PauseRequested("a moment"))
    await shop.release()
    assert (await process.saga(saga_id)).wake_at is None
    await shop.hold()

    await process.asked(saga_id, ResumeRequested("go on"))

    assert (await process.saga(saga_id)).seq == 0
    await shop.release()
    await process.settle()
    assert (await process.saga(saga_id)).current_step == "Flight"


async def test_a_held_saga_ends_at_its_deadline(shop: Shop) -> None:
    process = shop.process(HurriedTrip)
    await shop.hold("hurried-trip")
    saga_id = await process.start(HurriedTrip)
    await process.settle()
    assert (await process.saga(saga_id)).wake_at == shop.clock.now() + timedelta(minutes=10)

    shop.clock.move(timedelta(minutes=10))
    await process.settle()

    ended = await process.saga(saga_id)
    assert (ended.status, ended.steps) == (SagaStatus.COMPENSATED, {})


async def test_a_held_saga_whose_version_no_process_has_is_not_blocked(shop: Shop) -> None:
    old, new = shop.process(BookTripV1), shop.process(BookTripV2)
    await shop.hold(version=1)
    saga_id = await old.start(BookTripV1)
    await new.keeper.beat()
    shop.clock.move(timedelta(minutes=2))

    await new.keeper.beat()

    assert (await new.saga(saga_id)).status is SagaStatus.RUNNING
    assert not any(await shop.store.due())
    await shop.release()
    await old.settle()
    assert (await new.saga(saga_id)).current_step == "Flight"


async def test_more_sagas_than_are_made_due_at_once_are_made_due_in_order(shop: Shop) -> None:
    process = shop.process(BookTripV1)
    await shop.hold()
    sagas = sorted([await process.start(BookTripV1) for _ in range(3)])
    await process.settle()

    async with shop.store.transaction() as tx:
        last = await tx.wake_new("book-trip", 1, limit=2)
        assert last == sagas[1]
        assert await tx.wake_new("book-trip", 1, after=last, limit=2) is None

    assert [(await process.saga(one)).wake_at for one in sagas] == [shop.clock.now()] * 3
