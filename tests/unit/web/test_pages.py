"""The pages: made on the server, whole without scripts, and teaching where there is nothing to show."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from messaging.dead_letters import KeepsDeadLetters
from messaging.envelope import Envelope, to_queue
from messaging.memory import MemoryTransport
from messaging.transport import Outgoing, QueueSpec
from orchestrator.instance import Direction, StepKey, StepStatus
from orchestrator.registry import pin_of
from orchestrator.signals import Decision, KeptState
from orchestrator.web import DashboardSettings, create_app
from tests.conformance.stores import HOUR, NOON, SECOND, command, wait
from tests.unit.cli import walls
from tests.unit.web.conftest import HERE, Site, opened
from tests.unit.web.test_api import SOON


async def page(site: Site, path: str, **query: str) -> str:
    answer = await site.http.get(path, params=query or None)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "saga start NAME"),
        ("/sagas", "There are no sagas yet"),
        ("/failures", "No saga is blocked"),
        ("/definitions", "No definition is known here"),
        ("/bulk", "Nobody has acted"),
        ("/audit", "Nobody has asked"),
        ("/bus", "Every command that is due has left"),
    ],
)
async def test_where_there_is_nothing_a_page_teaches(site: Site, path: str, said: str) -> None:
    assert said in await page(site, path)


async def test_filters_are_in_the_url_and_an_id_leads_to_its_saga(site: Site) -> None:
    await site.saga(business_key="42")
    saga = await site.blocked(business_key="43")

    assert "42" not in re.findall(r'class="key">(\w*)<', await page(site, "/sagas", status="blocked"))
    as_the_form_asks = {"q": "42", "saga": "", "status": "", "step": ""}
    assert re.findall(r'class="key">(\w*)<', await page(site, "/sagas", **as_the_form_asks)) == ["42"]
    led = await site.http.get("/sagas", params={"q": f" {saga} "})
    assert (led.status_code, led.headers["location"]) == (303, f"/sagas/{saga}")


async def test_a_key_that_looks_like_an_id_is_found_as_a_key(site: Site) -> None:
    key = str(uuid4())
    saga = await site.blocked(business_key=key)

    assert f"/sagas/{saga}" in await page(site, "/sagas", q=key)


async def test_the_outcome_of_what_another_saga_was_asked_is_not_shown(walled: Site) -> None:
    mine, other = [
        (await walled.client.start(walls.PaintWallSaga, walls.Wall(name=name, ends="waiting"))).id for name in "ab"
    ]
    await walled.client.pause(other, reason="a reason of the other's")
    (request,) = (await walled.http.get(f"/api/sagas/{other}/audit")).json()

    assert "a reason of the other's" not in await page(walled, f"/sagas/{mine}", asked=request["signal_id"])


async def test_the_list_has_older_pages(site: Site) -> None:
    for number in range(51):
        await site.saga(business_key=str(number))

    older = re.findall(r'rel="next" href="([^"]+)"', await page(site, "/sagas", saga="create-order"))

    (link,) = older
    assert len(re.findall(r'id="s-', await page(site, link.replace("&amp;", "&")))) == 1


async def test_a_saga_is_drawn_with_its_attempts_and_tells_what_is_safe(site: Site) -> None:
    saga = await site.blocked("no answer", started_at=NOON, updated_at=NOON + HOUR)

    text = await page(site, f"/sagas/{saga}")

    assert "got no answer it could use" in text
    offered = re.findall(r'name="action" value="(\w+)"', text)
    assert offered == ["retry", "resolve", "skip", "compensate", "abandon"]
    assert "asks the participant again with the same key" in text
    assert 'class="bar unknown' in text and "no answer" in text


async def test_steps_that_wait_and_steps_that_are_undone_look_different(site: Site) -> None:
    undo = command(seq=3, key=StepKey("ReservingCredit", Direction.COMPENSATION), started_at=NOON + SECOND)
    done = command(status=StepStatus.SUCCEEDED, send_after=None, ended_at=NOON + SECOND)
    saga = await site.saga(done, wait(seq=2), undo)

    text = await page(site, f"/sagas/{saga.id}")

    assert re.findall(r'<rect class="bar (\w+)[^"]*" x=', text) == ["forward", "open", "undo"]
    assert 'fill="url(#hatched)"' in text


async def test_an_action_is_asked_from_a_form_and_its_outcome_is_seen(walled: Site) -> None:
    saga = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north", ends="blocked"))).id
    await walled.client.wait(saga, timeout=SOON)
    walls.ladder_is_back.set()
    text = await page(walled, f"/sagas/{saga}")
    fields = dict(re.findall(r'name="(csrf|key)" value="([^"]+)"', text))

    answer = await walled.http.post(
        f"/sagas/{saga}/actions", data={**fields, "action": "retry", "reason": "the ladder is back"}
    )
    seen = await page(walled, answer.headers["location"])

    assert answer.status_code == 303
    assert "✓ retry: blocked → running" in seen and "the ladder is back" in seen


async def test_the_steps_are_drawn_with_what_became_of_each_where_the_definition_is_known(walled: Site) -> None:
    saga = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north", ends="refused"))).id
    await walled.client.wait(saga, timeout=SOON)
    (link,) = re.findall(r'class="graph" src="([^"]+)"', await page(walled, f"/sagas/{saga}"))

    picture = await walled.http.get(link.replace("&amp;", "&"))

    assert picture.headers["content-type"] == "image/svg+xml" and "Painting" in picture.text
    assert ">✗ failed<" in picture.text and ">not begun<" in picture.text and 'class="happened failed"' in picture.text
    assert "sandbox" in picture.headers["content-security-policy"]
    assert (await walled.http.get("/graphs/other.svg", params={"version": 1})).status_code == 404


async def test_a_step_that_changed_very_much_is_shown_by_its_beginning(url: str) -> None:
    states = [json.dumps(dict.fromkeys(map(str, range(fields)))) for fields in (0, 60)]
    kept = tuple(KeptState(StepKey("Painting"), "on_reply", state, 1) for state in states)
    async with opened(url, app=walls.app) as site:
        saga = await site.saga(pin=pin_of(walls.PaintWallSaga), state="{}")
        async with site.store.transaction() as tx:
            await tx.save([Decision((await tx.lock([saga.id])).sagas[saga.id], states=kept)])
        text = await page(site, f"/sagas/{saga.id}")

    assert (text.count('class="path"'), "and 10 more, which the API has" in text) == (50, True)
    assert "what came before is not known" in text


async def test_a_wrong_address_is_a_page_that_leads_back(site: Site) -> None:
    answer = await site.http.get("/nowhere")

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html") and "Back to the overview" in answer.text


async def test_it_can_be_mounted_in_another_application(site: Site) -> None:
    saga = await site.blocked()
    other = FastAPI()
    other.mount("/ops/sagas", create_app(site.store.engine, settings=DashboardSettings()))

    async with AsyncClient(transport=ASGITransport(other, client=HERE), base_url="http://localhost") as http:
        answers = [await http.get(f"/ops/sagas{path}") for path in ("/", "/static/style.css", f"/api/sagas/{saga}")]
        away = await http.get("/ops/sagas/api/nowhere")

    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert not re.findall(r'(?:href|src|action|hx-get)="/(?!ops/sagas)', answers[0].text)
    assert away.headers["content-type"] == "application/problem+json"


async def test_dead_letters_are_shown_without_their_bodies_and_replayed(url: str) -> None:
    transport = MemoryTransport()
    await transport.open()
    await transport.declare([QueueSpec("payments")])
    await _die(transport)

    @asynccontextmanager
    async def letters() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
        yield transport, ["payments"]

    async with opened(url, letters=letters) as site:
        before = await page(site, "/letters")
        csrf = (await site.csrf())["x-csrf-token"]
        strange = await site.http.post("/letters/replay", data={"csrf": csrf, "queue": "other"})
        answer = await site.http.post("/letters/replay", data={"csrf": csrf, "queue": "payments"})
        after = await page(site, answer.headers["location"])
    await transport.close()

    assert "handler-raised" in before and "4929-1234" not in before
    assert strange.status_code == 404
    assert "1 back in their queue" in after and "No message is dead" in after


async def _die(transport: MemoryTransport) -> None:
    envelope = Envelope("m-1", b'{"card": "4929-1234"}', "charge")
    assert await transport.publish([Outgoing(envelope, to_queue("payments"))], timeout=SECOND) == [None]
    subscription = await transport.subscribe("payments", prefetch_messages=1)
    (delivery,) = await subscription.take(1)
    await subscription.dead_letter(delivery, "handler-raised", "ValueError")
    await subscription.close()
