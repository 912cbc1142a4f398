"""Definitions are held and released over HTTP, by operators who mean it, and the page tells which are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from orchestrator.sql import holds
from orchestrator.sql.tables import saga_hold, saga_instance
from tests.unit.web.conftest import READ_TOKEN, TOKEN, Site, opened
from tests.unit.web.test_pages import page

WHY = {"version": 1, "reason": "its refunds fail"}


async def asked(site: Site, what: str, body: dict[str, Any], **headers: str) -> Any:
    return await site.http.post(f"/api/definitions/create-order/{what}", json=body, headers=headers)


async def test_a_definition_is_held_and_released_over_the_api(site: Site) -> None:
    csrf = await site.csrf()
    saga = await site.saga()

    held = await asked(site, "hold", WHY, **csrf)

    assert held.status_code == 201
    told = held.json()
    assert (told["saga"], told["version"], told["reason"]) == ("create-order", 1, "its refunds fail")
    assert (await site.http.get("/api/holds")).json() == [told]
    assert (await site.http.get("/api/definitions")).json()[0]["hold"] == told
    waiting = (await site.http.get(f"/api/sagas/{saga.id}")).json()["waiting_for"]
    assert waiting == "an operator to release its definition"
    again = await asked(site, "hold", WHY, **csrf)
    assert (again.status_code, again.json()["type"]) == (409, "urn:sagasmith:problem:refused")

    released = await asked(site, "release", {"reason": "mended"}, **csrf)
    assert (released.status_code, released.json()) == (200, [told])
    assert (await site.http.get("/api/holds")).json() == []
    assert (await asked(site, "release", {"reason": "mended"}, **csrf)).status_code == 409


async def test_what_says_no_reason_or_no_version_that_can_be_is_refused(site: Site) -> None:
    csrf = await site.csrf()
    for body in ({"version": 1, "reason": " "}, {"version": -1, "reason": "x"}, {"version": 2**31, "reason": "x"}):
        assert (await asked(site, "hold", body, **csrf)).status_code == 422
    assert (await site.http.get("/api/holds")).json() == []


async def test_only_an_operator_who_means_it_holds_or_releases(url: str) -> None:
    async with opened(url, token=TOKEN, read_token=READ_TOKEN) as site:
        for what in ("hold", "release"):
            assert (await asked(site, what, WHY)).status_code == 401
            assert (await asked(site, what, WHY, authorization=f"Bearer {READ_TOKEN}")).status_code == 403
        assert (await asked(site, "hold", WHY, authorization=f"Bearer {TOKEN}")).status_code == 201


async def test_a_form_without_a_csrf_token_holds_nothing(site: Site) -> None:
    for what in ("hold", "release"):
        answer = await site.http.post(f"/definitions/{what}", data={"which": "1 create-order", "reason": "x"})
        assert answer.status_code == 403
    assert await site.client.holds() == []


async def test_the_page_holds_tells_and_releases(site: Site) -> None:
    await site.saga()
    form = {"csrf": (await site.csrf())["x-csrf-token"], "which": "all create-order", "reason": "<the bank> is closed"}
    assert '<option value="1 create-order">' in await page(site, "/definitions")

    answer = await site.http.post("/definitions/hold", data=form)

    assert (answer.status_code, answer.headers["location"]) == (303, "/definitions")
    text = await page(site, "/definitions")
    assert "create-order (all versions) is held" in text and "&lt;the bank&gt; is closed" in text
    assert ">held</span>" in text and 'value="all create-order"' in text
    assert (await site.http.post("/definitions/release", data=form)).status_code == 303
    assert await site.client.holds() == []
    assert (await site.http.post("/definitions/hold", data={**form, "which": "x create-order"})).status_code == 422


# -- repeated under a key, against both databases


@pytest.fixture(params=["sqlite", "postgresql"])
async def either(request: pytest.FixtureRequest) -> AsyncIterator[Site]:
    async with opened(request.getfixturevalue("url" if request.param == "sqlite" else "migrated_database")) as site:
        yield site


async def holds_ever(site: Site) -> int:
    async with site.store.engine.connect() as connection:
        return (await connection.execute(select(func.count()).select_from(saga_hold))).scalar_one()


async def test_a_hold_repeated_under_its_key_is_answered_as_the_first_and_holds_once(either: Site) -> None:
    keyed = {**await either.csrf(), "idempotency-key": "k-1"}
    first = await asked(either, "hold", WHY, **keyed)

    again = await asked(either, "hold", WHY, **keyed)
    await either.client.release("create-order", reason="mended")
    late = await asked(either, "hold", WHY, **keyed)

    assert [(one.status_code, one.json()) for one in (again, late)] == [(201, first.json())] * 2
    assert await either.client.holds() == [], "it was released since"


async def test_a_release_repeated_under_its_key_is_answered_as_the_first_and_ends_nothing_new(either: Site) -> None:
    keyed = {**await either.csrf(), "idempotency-key": "k-1"}
    await either.client.hold("create-order", version=2, reason="over before")
    await either.client.release("create-order", reason="mended")
    for version in (1, None):
        await either.client.hold("create-order", version=version, reason="x")
    first = await asked(either, "release", {"reason": "mended"}, **keyed)
    new = await either.client.hold("create-order", reason="again")

    again = await asked(either, "release", {"reason": "mended"}, **keyed)

    assert [one["version"] for one in first.json()] == [1, None]
    assert (again.status_code, again.json()) == (200, first.json())
    assert await either.client.holds() == [new]


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("hold", {**WHY, "reason": "another"}),
        ("hold", {**WHY, "version": 2}),
        ("hold", {"reason": WHY["reason"]}),
        ("release", WHY),
    ],
)
async def test_the_key_of_another_request_is_refused_and_nothing_is_done(
    site: Site, what: str, body: dict[str, Any]
) -> None:
    keyed = {**await site.csrf(), "idempotency-key": "k-1"}
    first = await asked(site, "hold", WHY, **keyed)

    answer = await asked(site, what, body, **keyed)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:sagasmith:problem:idempotency-key-reused")
    assert (await site.http.get("/api/holds")).json() == [first.json()]


async def test_what_was_refused_is_tried_anew_under_its_key(site: Site) -> None:
    keyed = {**await site.csrf(), "idempotency-key": "k-1"}
    assert (await asked(site, "release", WHY, **keyed)).status_code == 409
    hold = await site.client.hold("create-order", version=1, reason="x")

    released = await asked(site, "release", WHY, **keyed)

    assert (released.status_code, [one["id"] for one in released.json()]) == (200, [str(hold.id)])


@pytest.mark.parametrize("what", ["hold", "release"])
async def test_many_at_once_under_one_key_are_one(either: Site, what: str) -> None:
    keyed = {**await either.csrf(), "idempotency-key": "k-1"}
    if what == "release":
        await either.client.hold("create-order", version=1, reason="x")

    answers = await asyncio.gather(*(asked(either, what, WHY, **keyed) for _ in range(8)))

    assert {one.status_code for one in answers} == {201 if what == "hold" else 200}
    assert all(one.json() == answers[0].json() for one in answers)
    assert await holds_ever(either) == 1


async def test_a_release_that_was_killed_before_all_were_awake_wakes_them_when_it_is_repeated(site: Site) -> None:
    keyed = {**await site.csrf(), "idempotency-key": "k-1"}
    saga, later = await site.saga(), datetime.now(UTC) + timedelta(hours=1)
    await site.client.hold("create-order", version=1, reason="x")
    await asked(site, "release", WHY, **keyed)
    async with site.store.engine.begin() as connection:  # as if it had ended before it came to this saga
        await connection.run_sync(holds.put_off, {saga.id: later}, None)

    assert (await asked(site, "release", WHY, **keyed)).status_code == 200

    async with site.store.engine.connect() as connection:
        wake_at = await connection.scalar(select(saga_instance.c.wake_at).where(saga_instance.c.id == saga.id))
    assert wake_at is not None and wake_at < later
