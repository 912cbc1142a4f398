"""What an action would do, shown before it is asked for: by the core, with nothing written or sent."""

from __future__ import annotations

from uuid import UUID, uuid4

from tests.unit.cli import walls
from tests.unit.web.conftest import READ_TOKEN, TOKEN, Site, opened
from tests.unit.web.test_api import SOON
from tests.unit.web.test_pages import page


async def _blocked(site: Site) -> UUID:
    saga = (await site.client.start(walls.PaintWallSaga, walls.Wall(name="north", ends="blocked"))).id
    await site.client.wait(saga, timeout=SOON)
    return saga


async def test_what_an_action_would_do_is_told_and_nothing_is_done(walled: Site) -> None:
    saga = await _blocked(walled)
    before = await walled.client.get(saga)

    answer = await walled.http.post(f"/api/sagas/{saga}/simulate", json={"action": "retry"})

    assert answer.status_code == 200
    told = answer.json()
    assert (told["before"], told["after"], told["at"], told["refused"]) == ("blocked", "running", "Painting", "")
    assert told["effects"] == ["send paint to painter (Painting, attempt 2)"]
    assert await walled.client.get(saga) == before
    assert (await walled.http.get(f"/api/sagas/{saga}/audit")).json() == []


async def test_what_would_be_refused_is_told_with_why(walled: Site) -> None:
    saga = await _blocked(walled)

    answer = await walled.http.post(f"/api/sagas/{saga}/simulate", json={"action": "resume"})

    assert answer.status_code == 200 and "not paused" in answer.json()["refused"]


async def test_who_may_only_look_may_ask_what_would_happen(url: str) -> None:
    async with opened(url, app=walls.app, token=TOKEN, read_token=READ_TOKEN) as site:
        saga = (await site.client.start(walls.PaintWallSaga, walls.Wall(name="north"))).id
        asked = {"action": "cancel"}
        reader = {"authorization": f"Bearer {READ_TOKEN}"}

        told = await site.http.post(f"/api/sagas/{saga}/simulate", json=asked, headers=reader)
        stranger = await site.http.post(f"/api/sagas/{saga}/simulate", json=asked)

    assert (told.status_code, told.json()["before"]) == (200, "running")
    assert stranger.status_code == 401


async def test_without_the_definition_a_preview_is_not_guessed(site: Site) -> None:
    saga = await site.blocked()

    answer = await site.http.post(f"/api/sagas/{saga}/simulate", json={"action": "retry"})
    nowhere = await site.http.post(f"/api/sagas/{uuid4()}/simulate", json={"action": "retry"})
    text = await page(site, f"/sagas/{saga}", preview="retry")

    assert (answer.status_code, answer.json()["type"]) == (404, "urn:sagasmith:problem:unknown-definition")
    assert nowhere.json()["type"] == "urn:sagasmith:problem:unknown-saga"
    assert "only the definition tells" in text and "Now it would go" not in text


async def test_a_page_shows_what_an_action_would_do_before_it_is_confirmed(walled: Site) -> None:
    saga = await _blocked(walled)
    plain = await page(walled, f"/sagas/{saga}")

    assert f'href="/sagas/{saga}?preview=retry#act-retry"' in plain
    text = await page(walled, f"/sagas/{saga}", preview="retry")

    assert 'id="act-retry" open' in text and 'id="act-skip">' in text
    assert "Now it would go blocked → running, at Painting:" in text
    assert "<li>send paint to painter (Painting, attempt 2)</li>" in text
    assert (await walled.client.get(saga)).status.value == "blocked"
