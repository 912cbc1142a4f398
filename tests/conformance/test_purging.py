"""What has ended goes when its time is up, whole trees and nothing else, on every store."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from orchestrator.event_starts import STARTED_NOTHING
from orchestrator.instance import Item, Parent, SagaInstance, SagaStatus
from orchestrator.purging import Purged, Purger
from orchestrator.retention import Place, Rest, Retention
from orchestrator.signals import LocksAsked, Note, Replaced
from orchestrator.store_records import NewSignal, ReceivedEvent, UnmatchedMessage
from tests.conformance.stores import (
    HOUR,
    NOON,
    SECOND,
    Kept,
    MovableClock,
    adding,
    command,
    load,
    make_store,
    new_saga,
    opened,
    sqlite_url,
    wait,
)

DAY = timedelta(days=1)
COMPLETED, ABANDONED = SagaStatus.COMPLETED, SagaStatus.ABANDONED


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    where, clock = "", MovableClock()
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Kept(store, clock)


@pytest.fixture(params=["sqlite", "postgresql"])
async def in_sql(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    where, clock = "", MovableClock()
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Kept(store, clock)


def over(status: SagaStatus = COMPLETED, **changes: Any) -> SagaInstance:
    """A saga that has ended at noon."""
    return new_saga(**{"status": status, "wake_at": None, "ended_at": NOON} | changes)


def child_of(parent: SagaInstance, **changes: Any) -> SagaInstance:
    root = parent.parent.root if parent.parent else parent.id
    fields: dict[str, Any] = {"parent": Parent(parent.id, root, "Insuring"), **changes}
    return over(**fields)


async def start(kept: Kept, *sagas: SagaInstance) -> None:
    async with kept.store.transaction() as tx:
        for saga in sagas:
            await tx.start(saga)


async def purged(kept: Kept, **days: float) -> Purged:
    """Purge once: what is kept how many days."""
    named = {status.value: status for status in SagaStatus}
    rests = {rest.value: rest for rest in Rest}
    sagas = {named[name]: number * DAY for name, number in days.items() if name in named}
    rest = {rests[name]: number * DAY for name, number in days.items() if name in rests}
    purger = Purger(kept.store, Retention(sagas, rest), pause=_no_pause)
    return sum([one async for one in purger.run()], Purged())


async def _no_pause(_: float) -> None: ...


async def ids_left(kept: Kept, sagas: Iterable[SagaInstance]) -> set[UUID]:
    async with kept.store.transaction() as tx:
        return set((await tx.lock([saga.id for saga in sagas])).sagas)


async def test_each_status_is_kept_for_its_own_time_and_what_is_not_named_for_ever(kept: Kept) -> None:
    done, undone, given_up, running = over(), over(SagaStatus.COMPENSATED), over(ABANDONED), new_saga()
    later = over(ended_at=NOON + DAY)
    everything = [done, undone, given_up, running, later]
    await start(kept, *everything)

    kept.clock.move(30 * DAY)
    assert not (await purged(kept, completed=30, compensated=90)).sagas, "to the day"
    kept.clock.move(SECOND)
    assert (await purged(kept, completed=30, compensated=90)).sagas == Counter({COMPLETED: 1})
    assert await ids_left(kept, everything) == {one.id for one in everything} - {done.id}

    kept.clock.move(60 * DAY)
    assert (await purged(kept, completed=30, compensated=90)).sagas == Counter(
        {COMPLETED: 1, SagaStatus.COMPENSATED: 1}
    )
    assert await ids_left(kept, everything) == {given_up.id, running.id}


async def test_all_of_many_go_a_few_at_a_time_and_none_twice(kept: Kept) -> None:
    many = [over(ended_at=NOON + number % 3 * SECOND) for number in range(25)]
    await start(kept, *many)
    kept.clock.move(2 * DAY)

    purger = Purger(kept.store, Retention({COMPLETED: DAY}), batch=10, pause=_no_pause)
    assert [one.sagas[COMPLETED] async for one in purger.run()] == [10, 10, 5]
    assert await ids_left(kept, many) == set()


async def test_a_tree_goes_whole_or_stays_whole(kept: Kept) -> None:
    whole, alive, told = over(), over(ABANDONED), over()
    whole_child = child_of(whole, status=SagaStatus.COMPENSATED)
    grandchild = child_of(whole_child)
    alive_child = child_of(alive, status=SagaStatus.RUNNING, wake_at=NOON, ended_at=None)
    held_by_alive = child_of(alive)
    told_child = child_of(told)
    stay = [alive, alive_child, held_by_alive, told, told_child]
    await start(kept, whole, whole_child, grandchild, *stay)
    async with kept.store.transaction() as tx:
        await tx.add_signals([NewSignal(told_child.id, "child_order", "{}")])
    kept.clock.move(2 * DAY)

    gone = await purged(kept, completed=1, abandoned=1, compensated=1)

    assert (gone.sagas, gone.left) == (Counter({COMPLETED: 3}), 2)
    assert await ids_left(kept, [whole, whole_child, grandchild]) == set()
    assert await ids_left(kept, stay) == {one.id for one in stay}


async def test_a_child_that_ended_long_ago_stays_as_long_as_its_parent_lives(kept: Kept) -> None:
    parent = new_saga()
    child = child_of(parent)
    await start(kept, parent, child)
    kept.clock.move(900 * DAY)

    assert not (await purged(kept, completed=1)).sagas
    assert await ids_left(kept, [child]) == {child.id}


async def test_a_large_tree_is_a_batch_of_its_own(kept: Kept) -> None:
    roots = [over(ended_at=NOON + number * SECOND) for number in range(4)]
    family = [child_of(roots[1]) for _ in range(12)]
    await start(kept, *roots, *family)
    kept.clock.move(2 * DAY)

    purger = Purger(kept.store, Retention({COMPLETED: DAY}), batch=5, pause=_no_pause)
    counts = [one.sagas[COMPLETED] async for one in purger.run()]

    assert sum(counts) == 16
    assert await ids_left(kept, [*roots, *family]) == set()


async def with_everything(kept: Kept) -> SagaInstance:
    """A saga with something in every table, which has ended and holds no lock but by mistake."""
    saga = new_saga(business_key="42")
    await start(kept, saga)
    loaded = await load(kept.store, saga.id)
    first, waits = command(), wait(seq=2)
    decision = replace(
        adding(loaded, first, waits),
        notes=(Note("late_reply", "Ann's answer", "ReservingCredit"),),
        replaced=(Replaced(uuid4(), first.key, 1, 1),),
        items=(Item("Packing", 0, "sku-7", '"a lamp"'),),
    )
    async with kept.store.transaction() as tx:
        await tx.lock([saga.id])
        await tx.save([decision])
        await tx.change_locks(saga, [LocksAsked("ReservingCredit", ("customer:42",), False)])
        await tx.add_signals([NewSignal(saga.id, "cancel", "{}"), NewSignal(saga.id, "reply", "{}", "boom")])
        await tx.add_unmatched([UnmatchedMessage("m-1", "unknown", b"?", "{}", saga.id)])
        [event_id] = await tx.add_events([ReceivedEvent("e-1", "payment-captured", "42", '{"paid":1}', HOUR)])
        await tx.consume_events({event_id: saga.id})
    async with kept.store.transaction() as tx:
        await tx.take_signals([one.id for one in await tx.pending_signals([saga.id])])
        ending = (await tx.lock([saga.id])).sagas[saga.id]
        done = replace(ending, status=COMPLETED, wake_at=None, ended_at=NOON)
        await tx.save([replace(adding(ending), instance=done)])
    return saga


TABLES = [
    *("saga_instance", "saga_step", "saga_attempt", "saga_item", "saga_signal"),
    *("saga_history", "saga_unmatched", "saga_event", "saga_lock"),
]


async def rows(kept: Kept, table: str) -> int:
    async with kept.store.engine.connect() as connection:
        return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


async def test_nothing_of_a_saga_stays_but_its_key_and_its_audit(in_sql: Kept) -> None:
    saga = await with_everything(in_sql)
    for table in TABLES:
        assert await rows(in_sql, table), table
    in_sql.clock.move(2 * DAY)

    await purged(in_sql, completed=1)

    assert {table: await rows(in_sql, table) for table in TABLES} == dict.fromkeys(TABLES, 0)
    async with in_sql.store.engine.connect() as connection:
        key = (await connection.execute(text("SELECT saga_id, ended_as, purged_at FROM saga_key"))).one()
    assert (str(key.saga_id), key.ended_as) == (str(saga.id), "completed") and key.purged_at is not None


async def test_a_second_start_with_the_key_of_a_purged_saga_starts_nothing(kept: Kept) -> None:
    first = over(business_key="42")
    await start(kept, first)
    kept.clock.move(2 * DAY)
    await purged(kept, completed=1)

    async with kept.store.transaction() as tx:
        assert await tx.start(new_saga(business_key="42")) == (first.id, False)
        again = new_saga(business_key="42")
        assert await tx.start(again, reuse_key_after_end=True) == (again.id, True)


async def test_an_event_a_purged_saga_consumed_is_known_as_a_copy_until_it_expires(kept: Kept) -> None:
    saga = await with_everything(kept)
    again = ReceivedEvent("e-1", "payment-captured", "42", '{"paid":1}', HOUR)
    kept.clock.move(HOUR / 2)
    assert (await purged(kept, completed=1 / 48 - 0.001)).sagas == Counter({COMPLETED: 1})
    assert await ids_left(kept, [saga]) == set()

    waiting = new_saga()
    await start(kept, waiting)
    async with kept.store.transaction() as tx:
        loaded = (await tx.lock([waiting.id])).sagas[waiting.id]
        await tx.save([adding(loaded, wait())])
    async with kept.store.transaction() as tx:
        assert await tx.add_events([again]) == []
        assert await tx.event_matches() == []
    assert (await purged(kept, events=1 / 24)).rest == Counter()
    kept.clock.move(2 * HOUR)
    assert (await purged(kept, events=1 / 24)).rest == Counter({Rest.EVENTS: 1})


async def test_what_nobody_took_goes_by_its_age(in_sql: Kept) -> None:
    async with in_sql.store.transaction() as tx:
        events = [ReceivedEvent(f"e-{number}", "payment-captured", "42", "{}", HOUR) for number in range(2)]
        [_, started_nothing] = await tx.add_events(events)
        await tx.consume_events({started_nothing: STARTED_NOTHING})
        await tx.add_unmatched([UnmatchedMessage("m-1", "unknown", b"?", "{}")])
        await tx.add_signals([NewSignal(UUID(int=7), "cancel", "{}")])
    all_rest = {rest.value: 1.0 for rest in Rest}
    in_sql.clock.move(DAY + HOUR)
    assert (await purged(in_sql, **all_rest)).rest == Counter({Rest.UNMATCHED: 1, Rest.SIGNALS: 1})
    in_sql.clock.move(SECOND)
    assert (await purged(in_sql, **all_rest)).rest == Counter({Rest.EVENTS: 2})


async def test_purgers_that_work_at_once_delete_each_saga_once_and_pass_over_what_an_engine_holds(
    migrated_database: str,
) -> None:
    async with opened(make_store("postgresql", migrated_database, MovableClock())) as store:
        kept = Kept(store, MovableClock())
        many, held = [over() for _ in range(60)], over()
        await start(kept, *many, held)
        purgers = [Purger(store, Retention({COMPLETED: -HOUR}), batch=7, pause=_no_pause) for _ in range(3)]

        async def one(purger: Purger) -> int:
            return sum([each.sagas[COMPLETED] async for each in purger.run()])

        async with store.transaction() as engine:
            await engine.lock([held.id])
            counts = await asyncio.gather(*map(one, purgers))
        assert sum(counts) == 60
        assert await ids_left(kept, [*many, held]) == {held.id}


async def test_one_process_at_a_time_claims_the_purge_and_a_dead_ones_claim_ends(in_sql: Kept) -> None:
    async def claimed() -> bool:
        async with in_sql.store.transaction() as tx:
            return bool(await tx.claim_purge(every=HOUR))

    assert [await claimed(), await claimed()] == [True, False]
    in_sql.clock.move(HOUR)
    assert [await claimed(), await claimed()] == [True, False]
    in_sql.clock.move(-9 * DAY)
    assert [await claimed(), await claimed()] == [True, False], "the clock was wrong"


async def test_where_to_look_on_passes_by_what_was_left(kept: Kept) -> None:
    left, going = over(), over(ended_at=NOON + SECOND)
    await start(kept, left, going)
    async with kept.store.transaction() as tx:
        await tx.add_signals([NewSignal(left.id, "cancel", "{}")])
    async with kept.store.transaction() as tx:
        first = await tx.lock_ended(COMPLETED, before=NOON + DAY, limit=1)
        assert (first.trees, first.left, first.further) == ((), 1, Place(NOON, left.id))
        second = await tx.lock_ended(COMPLETED, before=NOON + DAY, after=first.further, limit=1)
        assert [tree.id for tree in second.trees] == [going.id]
