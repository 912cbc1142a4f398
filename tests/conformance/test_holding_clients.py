"""Holding from programs, from asyncio and from threads alike; and by the watchdog, where it may."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url

from orchestrator import asking_holds
from orchestrator.client import BlockingSagaClient, SagaClient
from orchestrator.errors import HoldRefused
from orchestrator.holding_failing import HoldsFailing
from orchestrator.sql import SqlStore
from orchestrator.watchdog import Alarm, Watchdog
from tests.conformance.stores import HOUR, NOON, SECOND, MovableClock, load, make_store, opened, sqlite_url, started


class Client:
    """Either kind, asked from asyncio."""

    def __init__(self, client: SagaClient | BlockingSagaClient) -> None:
        self.client: Any = client

    async def __call__(self, method: str, *args: Any, **kwargs: Any) -> Any:
        call = getattr(self.client, method)
        if isinstance(self.client, SagaClient):
            return await call(*args, **kwargs)
        return await asyncio.to_thread(call, *args, **kwargs)


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, MovableClock())) as store:
        yield store


@pytest.fixture(params=["asyncio", "threads"])
def client(request: pytest.FixtureRequest, store: SqlStore) -> Any:
    if request.param == "asyncio":
        yield Client(SagaClient(store.engine))
        return
    driver = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}[store.engine.dialect.name]
    engine = create_engine(make_url(store.engine.url).set(drivername=driver))
    yield Client(BlockingSagaClient(engine))
    engine.dispose()


async def test_a_client_holds_tells_and_releases(client: Client) -> None:
    hold = await client("hold", "create-order", version=1, reason="it fails", by="ann")

    assert (hold.saga, hold.version, hold.reason, hold.by) == ("create-order", 1, "it fails", "ann")
    assert await client("holds") == [hold]
    with pytest.raises(HoldRefused, match=r"create-order v1 is held already, since .* by ann: it fails"):
        await client("hold", "create-order", version=1, reason="again")
    assert await client("release", "create-order", reason="mended") == [hold]
    with pytest.raises(HoldRefused, match=r"create-order \(all versions\) is not held.* Held: nothing"):
        await client("release", "create-order", reason="mended")


async def test_a_release_wakes_all_that_wait_and_nothing_else(
    store: SqlStore, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking_holds, "_AT_ONCE", 2)
    put_off = NOON + HOUR * 24 * 365 * 20
    waiting = [await started(store, wake_at=put_off) for _ in range(5)]
    paused = await started(store, wake_at=None, paused_at=NOON)
    begun = await started(store, seq=1, wake_at=put_off)
    await client("hold", "create-order", reason="it fails")
    assert await client("not_begun", "create-order") == 5
    assert await client("not_begun", "create-order", version=2) == 0

    await client("release", "create-order", reason="mended")

    woken = [(await load(store, saga.id)).wake_at for saga in waiting]
    assert all(wake_at is not None and wake_at < put_off for wake_at in woken)
    assert (await load(store, paused.id)).wake_at is None
    assert (await load(store, begun.id)).wake_at == put_off


async def test_a_release_that_was_cut_short_is_made_good_by_asking_again(store: SqlStore, client: Client) -> None:
    put_off = NOON + HOUR * 24 * 365 * 20
    saga = await started(store, wake_at=put_off)

    with pytest.raises(HoldRefused):
        await client("release", "create-order", reason="once more")

    woken = (await load(store, saga.id)).wake_at
    assert woken is not None and woken < put_off


# -- the watchdog


FAILS = Alarm("failing", "create-order v1", "create-order v1 fails", {"saga": "create-order", "version": 1}, 30)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    where = request.getfixturevalue("migrated_database") if request.param == "postgresql" else sqlite_url(tmp_path)
    clock = MovableClock()
    async with opened(make_store(request.param, where, clock)) as store:
        yield store, clock


async def holds(store: Any) -> list[tuple[str, int | None, str, str]]:
    async with store.transaction() as tx:
        return [(one.saga, one.version, one.by, one.reason) for one in await tx.holds()]


async def test_the_watchdog_holds_what_fails_once_and_leaves_it_alone_for_a_while_once_it_is_released(
    any_store: Any,
) -> None:
    store, clock = any_store
    act = HoldsFailing(store, HOUR)
    for _ in range(2):
        await act([Alarm("blocked", "create-order", "3 sagas", {}), FAILS])
    assert await holds(store) == [("create-order", 1, "watchdog", "create-order v1 fails")]

    async with store.transaction() as tx:
        await tx.release("create-order", 1, reason="mended", by="ann")
    clock.move(HOUR)
    await act([FAILS])
    assert await holds(store) == []
    clock.move(SECOND)
    await act([FAILS])
    assert len(await holds(store)) == 1


async def test_the_watchdog_holds_no_version_of_what_is_held_as_a_whole(any_store: Any) -> None:
    store, _ = any_store
    async with store.transaction() as tx:
        await tx.hold("create-order", None, reason="closed", by="ann")

    await HoldsFailing(store, HOUR)([FAILS])

    assert await holds(store) == [("create-order", None, "ann", "closed")]


async def test_what_could_not_be_done_about_an_alarm_is_done_at_the_next_look(any_store: Any) -> None:
    store, _ = any_store
    tries: list[int] = []

    async def act(raised: Any) -> None:
        tries.append(len(raised))
        if len(tries) == 1:
            raise OSError("the database is away")

    async def check(_: Any) -> list[Alarm]:
        return [FAILS]

    watchdog = Watchdog(store, [check], lambda _: None, act=act)
    await watchdog.look(alarms=False)
    await watchdog.look()
    await watchdog.look()

    assert tries == [1, 1]
