"""Definitions are held and released over HTTP, by operators who mean it, and the page tells which are."""

from __future__ import annotations

from typing import Any

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
