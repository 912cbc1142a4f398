"""One action on many sagas: frozen ids, a pace, a result for each; kept in the database, whoever goes on with it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import func, select

from orchestrator.sql import SqlStore
from orchestrator.sql.tables import saga_signal
from orchestrator.web import bulk
from orchestrator.web.asking import Once, Wish
from tests.conformance.stores import make_store, opened, sqlite_url
from tests.unit.cli import walls
from tests.unit.web.conftest import Site
from tests.unit.web.conftest import opened as opened_site
from tests.unit.web.test_api import SOON

RETRY = Wish("retry", "the ladder is back", "ann")


async def ended(site: Site, bulk_id: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            told: dict[str, Any] = (await site.http.get(f"/api/bulk/{bulk_id}")).json()
            if not told["waiting"] and not told["asked"]:
                return told
            await asyncio.sleep(0.05)


async def test_all_of_a_group_of_failures_are_retried_with_one_result_each(walled: Site) -> None:
    sagas = [
        (await walled.client.start(walls.PaintWallSaga, walls.Wall(name=str(n), ends="blocked"))).id for n in range(12)
    ]
    for saga in sagas:
        await walled.client.wait(saga, timeout=SOON)
    (group,) = (await walled.http.get("/api/failures")).json()
    walls.ladder_is_back.set()

    asked = {"action": "retry", "reason": "the ladder is back", "failure_group": group["id"], "per_second": 1000}
    begun = await walled.http.post("/api/bulk", json=asked, headers=await walled.csrf())
    told = await ended(walled, begun.json()["id"])

    assert begun.status_code == 201 and begun.headers["location"].endswith(begun.json()["id"])
    assert (told["total"], told["done"], told["refused"]) == (12, 12, 0)
    for saga in sagas:
        assert (await walled.client.wait(saga, timeout=SOON)).status.value == "completed"


async def test_each_refusal_and_each_unknown_saga_is_told(walled: Site) -> None:
    done = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north"))).id
    await walled.client.wait(done, timeout=SOON)
    nowhere = uuid4()

    asked = {"action": "retry", "reason": "again", "saga_ids": [str(done), str(nowhere), str(done)]}
    begun = (await walled.http.post("/api/bulk", json=asked, headers=await walled.csrf())).json()
    told = await ended(walled, begun["id"])
    results = (await walled.http.get(f"/api/bulk/{begun['id']}/results", params={"limit": 1})).json()
    further = (await walled.http.get(f"/api/bulk/{begun['id']}/results", params={"after": results["next"]})).json()

    assert (told["total"], told["refused"], told["failed"]) == (2, 1, 1)
    first, second = results["items"] + further["items"]
    assert (first["saga_id"], first["outcome"], first["text"]) == (str(done), "refused", "it is completed")
    assert (second["saga_id"], second["outcome"]) == (str(nowhere), "failed")
    assert further["next"] is None


@pytest.mark.parametrize(
    ("asked", "status", "said"),
    [
        ({}, 422, "one of saga_ids, where, failure_group"),
        ({"saga_ids": []}, 422, "at least 1"),
        ({"saga_ids": ["x"]}, 422, "UUID"),
        ({"where": {"key": "none"}}, 409, "no saga is meant"),
        ({"failure_group": "none"}, 409, "no saga is meant"),
        ({"where": {}}, 409, "more than 2 sagas are meant"),
    ],
)
async def test_a_bulk_without_sagas_or_with_too_many_is_refused(
    url: str, asked: dict[str, Any], status: int, said: str
) -> None:
    async with opened_site(url, bulk_sagas=2) as site:
        for _ in range(3):
            await site.blocked()
        answer = await site.http.post(
            "/api/bulk", json={"action": "retry", "reason": "x", **asked}, headers=await site.csrf()
        )

    assert answer.status_code == status and said in answer.json()["detail"]


async def test_a_bulk_repeated_under_its_key_is_one(site: Site) -> None:
    await site.blocked()
    headers = {**await site.csrf(), "idempotency-key": "k-1"}
    asked = {"action": "retry", "reason": "x", "where": {"status": "blocked"}}

    first = (await site.http.post("/api/bulk", json=asked, headers=headers)).json()["id"]
    await site.blocked()
    again = (await site.http.post("/api/bulk", json=asked, headers=headers)).json()

    assert (again["id"], again["total"]) == (first, 1)
    assert len((await site.http.get("/api/bulk")).json()) == 1


async def test_a_stopped_bulk_asks_no_further_saga(url: str) -> None:
    async with opened_site(url, bulk_per_second=1) as site:
        for _ in range(20):
            await site.blocked()
        csrf = await site.csrf()
        asked = {"action": "retry", "reason": "x", "where": {"status": "blocked"}}
        begun = (await site.http.post("/api/bulk", json=asked, headers=csrf)).json()

        told = (await site.http.post(f"/api/bulk/{begun['id']}/stop", headers=csrf)).json()

    assert told["stopped_at"] is not None and told["waiting"] >= 2


# -- against both databases


@pytest.fixture(params=["sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    where = sqlite_url(tmp_path) if request.param == "sqlite" else request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, None)) as store:
        yield store


async def begun(store: SqlStore, ids: list[UUID], per_second: int = 40) -> UUID:
    async with store.engine.begin() as connection:
        return await connection.run_sync(
            lambda c: bulk.begin(c, RETRY, lambda: ids, Once.of("", ""), per_second=per_second, schema=None)
        )


async def asked(store: SqlStore, *, now: datetime | None = None) -> tuple[datetime | None, int]:
    """Ask the next few; returns when something is due again, and how many signals there are by then."""
    async with store.engine.begin() as connection:
        due = await connection.run_sync(bulk.ask_some, None, now=now or datetime.now(UTC))
        return due, (await connection.execute(select(func.count()).select_from(saga_signal))).scalar_one()


async def test_sagas_are_asked_a_few_at_a_time_and_each_once(store: SqlStore) -> None:
    site = Site(None, store, None)  # type: ignore[arg-type]
    ids = [await site.blocked() for _ in range(12)]
    bulk_id = await begun(store, ids)
    now = datetime.now(UTC)

    assert await asked(store, now=now) == (now, 10)
    due, same = await asked(store, now=now)
    assert (due, same) == (now + bulk.TICK, 10), "it is not due yet"
    assert await asked(store, now=due) == (due, 12)

    assert await asked(store, now=now + timedelta(hours=1)) == (None, 12)
    async with store.engine.connect() as connection:
        told = await connection.run_sync(bulk.get_bulk, bulk_id, None)
    assert (told.asked, told.waiting, told.ended) == (12, 0, False)


async def test_two_processes_at_once_ask_no_saga_twice(store: SqlStore) -> None:
    site = Site(None, store, None)  # type: ignore[arg-type]
    await begun(store, [await site.blocked() for _ in range(10)])

    await asyncio.gather(*(asked(store) for _ in range(2)))

    async with store.engine.connect() as connection:
        signals = (await connection.execute(select(saga_signal.c.saga_id))).scalars().all()
    assert len(signals) == len(set(signals)) == 10
