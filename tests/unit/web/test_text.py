"""Whatever others wrote stays text: script in payloads, names, errors and URLs, SQL in filters, bodies too large."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from itertools import product
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from pydantic import SecretStr

from messaging.memory import MemoryTransport
from orchestrator.app import running
from orchestrator.instance import Pin
from orchestrator.settings import OrchestratorSettings
from orchestrator.signals import Decision, Note
from orchestrator.web.shield import MAX_BODY_BYTES
from tests.conformance.bookings import BookTrip, Card, Trip, app, travel
from tests.conformance.stores import command
from tests.unit.cli import walls
from tests.unit.web.conftest import Site, opened
from tests.unit.web.paths import filled, parameters, routes
from tests.unit.web.test_api import SOON

SCRIPT = """</pre><script>alert(1)</script><img src=x onerror="alert(1)">'"><svg/onload=alert(1)>"""
SQL = ["'", "' OR '1'='1", "'; DROP TABLE saga_instance; --", '"; --', "%", "_", "\\", "1) UNION SELECT 1--"]


class Tags(HTMLParser):
    """Collects what a browser would take for more than text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        sourced = tag == "script" and any(name == "src" and value for name, value in attrs)
        if (tag == "script" and not sourced) or any(name.startswith("on") or name == "style" for name, _ in attrs):
            self.found.append(self.get_starttag_text() or tag)
        if any((value or "").lower().startswith("javascript:") for _, value in attrs):
            self.found.append(self.get_starttag_text() or tag)


def harmless(page: str) -> bool:
    tags = Tags()
    tags.feed(page)
    assert not tags.found
    return "<script>alert" not in page and "<img src=x" not in page


async def test_script_in_names_keys_errors_and_notes_stays_text(site: Site) -> None:
    record = command(SCRIPT[:60], error_code=SCRIPT, error_text=SCRIPT, participant=SCRIPT, wire_name=SCRIPT)
    saga = await site.saga(record, pin=Pin(SCRIPT, 1, "f"), business_key=SCRIPT, current_step=SCRIPT)
    await site.blocked(SCRIPT, pin=Pin(SCRIPT, 1, "f"), blocked_step=SCRIPT)
    async with site.store.transaction() as tx:
        locked = (await tx.lock([saga.id])).sagas[saga.id]
        await tx.save([Decision(locked, notes=(Note("retry", SCRIPT, SCRIPT),))])

    for path in ("/", "/sagas", f"/sagas/{saga.id}", "/failures"):
        page = (await site.http.get(path)).text
        assert harmless(page), path
        assert "&lt;script&gt;" in page or "&lt;/pre&gt;" in page, path


async def test_script_in_urls_and_reasons_stays_text(site: Site) -> None:
    saga = await site.blocked()
    csrf = (await site.csrf())["x-csrf-token"]
    await site.http.post("/bulk", data={"csrf": csrf, "action": "retry", "reason": SCRIPT, "status": "blocked"})
    for path, query in [
        *(("/sagas", {name: SCRIPT}) for name in ("q", "saga", "step", "status", "after")),
        (f"/sagas/{saga}", {"asked": SCRIPT}),
        (f"/{SCRIPT}", {}),
        ("/bulk", {}),
        ("/audit", {"after": SCRIPT}),
    ]:
        assert harmless((await site.http.get(path, params=query)).text), path


async def test_script_in_a_form_comes_back_as_text_only(site: Site) -> None:
    csrf = (await site.csrf())["x-csrf-token"]

    answer = await site.http.post(f"/sagas/{uuid4()}/actions", data={"csrf": csrf, "action": SCRIPT, "reason": "x"})

    assert answer.status_code == 422 and harmless(answer.text)


@pytest.mark.parametrize("name", ["saga", "key", "step", "status"])
async def test_sql_in_a_filter_is_a_word_like_any_other(site: Site, name: str) -> None:
    await site.saga(command(), business_key="42")
    for word in SQL:
        answer = await site.http.get("/api/sagas", params={name: word})
        assert answer.status_code == (422 if name == "status" else 200), word
        assert answer.json().get("items", []) == []
        page = await site.http.get("/sagas", params={"q" if name == "key" else name: word})
        assert page.status_code == (422 if name == "status" else 200), word

    assert len((await site.http.get("/api/sagas")).json()["items"]) == 1


async def test_sql_is_a_word_like_any_other_wherever_something_is_asked_for(site: Site) -> None:
    await site.saga(command(), business_key="42")
    asked, before = 0, (await site.http.get("/api/sagas")).json()["items"]
    for route in routes(site, "GET"):
        if route.path.endswith("/events"):  # takes the filters of /api/sagas, and does not end
            continue
        for word, parameter in product(SQL, parameters(route)):
            path = filled(route.path.replace(f"{{{parameter}}}", quote(word, safe="")))
            answer = await site.http.get(path, params={parameter: word}, headers={parameter: quote(word)})
            assert answer.status_code < 500, (path, parameter, word)
            asked += 1

    assert asked > 200
    assert (await site.http.get("/api/sagas")).json()["items"] == before


@pytest.mark.parametrize("name", ["saga", "key", "step"])
async def test_sql_that_chooses_sagas_for_a_bulk_action_chooses_none(site: Site, name: str) -> None:
    await site.blocked()
    for word in SQL:
        asked = {"action": "abandon", "reason": word, "where": {name: word}}
        answer = await site.http.post("/api/bulk", json=asked, headers=await site.csrf())
        assert answer.status_code == 409, word

    assert (await site.http.get("/api/bulk")).json() == []


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"[]", 422),
        (b'{"action": "explode", "reason": "x"}', 422),
        (b'{"action": "retry", "reason": "  "}', 422),
        (b'{"action": "retry", "reason": "\\u0000"}', 422),
        (b'{"action": "retry", "reason": "\\ud800"}', 422),
        (b'{"action": "retry", "reason": "' + b"x" * 3000 + b'"}', 422),
        (b"[" * 100_000, 422),
        (b"\xff\xfe", 422),
        (b'{"reason": "' + b"x" * MAX_BODY_BYTES + b'"}', 413),
    ],
    ids=["empty", "cut", "list", "action", "blank", "nul", "surrogate", "long", "deep", "no-utf8", "large"],
)
async def test_a_malformed_or_oversized_request_is_refused_without_being_repeated(
    site: Site, content: bytes, status: int
) -> None:
    saga, csrf = await site.blocked(), await site.csrf()

    answer = await site.http.post(
        f"/api/sagas/{saga}/actions", content=content, headers={**csrf, "content-type": "application/json"}
    )

    assert answer.status_code in (status, 400 if status == 422 else status), answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert "explode" not in answer.json()["detail"] and len(answer.content) < 2000


@pytest.mark.parametrize("body", [b"\xff=%ff", b"&" * 10_000, b"a=1&" * 100, b"csrf=" + b"x" * MAX_BODY_BYTES])
async def test_a_malformed_or_oversized_form_is_refused(site: Site, body: bytes) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}

    answer = await site.http.post(f"/sagas/{uuid4()}/actions", content=body, headers=headers)

    assert answer.status_code in (400, 403, 413)


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static//etc/passwd", "/graphs/..%2f..%2fx.svg"]
)
async def test_a_path_leads_nowhere_else(site: Site, path: str) -> None:
    assert (await site.http.get(path)).status_code in (404, 405)


async def test_what_a_definition_marks_as_secret_is_never_shown(url: str) -> None:
    secret, holder = "4929-1234", "Ann Example"
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    async with running(app, travel, settings=settings, transport=MemoryTransport()), opened(url, app=app) as site:
        state = Trip(number="1", ends="well", card=Card(holder=holder, pin=SecretStr(secret)))
        saga = (await site.client.start(BookTrip, state)).id
        await site.client.wait(saga, timeout=SOON)

        paths = (f"/api/sagas/{saga}/payloads", f"/api/sagas/{saga}/states")
        told = [(await site.http.get(path)).text for path in (f"/sagas/{saga}", *paths)]

    assert all("redacted-" in text for text in told)
    assert not any(holder in text or secret in text for text in told)


async def test_without_the_definition_nothing_of_state_and_messages_is_shown(walled: Site, url: str) -> None:
    saga = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name="a-name-like-no-other"))).id
    await walled.client.wait(saga, timeout=SOON)

    async with opened(url) as unknowing:
        page = (await unknowing.http.get(f"/sagas/{saga}")).text
        told: dict[str, Any] = (await unknowing.http.get(f"/api/sagas/{saga}/payloads")).json()
        states: dict[str, Any] = (await unknowing.http.get(f"/api/sagas/{saga}/states")).json()

    assert "a-name-like-no-other" in (await walled.http.get(f"/sagas/{saga}")).text
    assert "a-name-like-no-other" not in page
    assert states["items"] == [] and "--app" in states["note"]
    assert (told["state"], told["messages"]) == (None, []) and "--app" in told["hidden"]


async def test_script_in_a_state_and_in_what_became_of_it_stays_text(walled: Site) -> None:
    saga = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name=SCRIPT, remark=SCRIPT))).id
    await walled.client.wait(saga, timeout=SOON)

    page = (await walled.http.get(f"/sagas/{saga}")).text

    assert harmless(page)
    assert re.search(r"<del>&#34;&lt;/pre&gt;&lt;script&gt;.*</del> → <ins>&#34;.* is painted&#34;</ins>", page)
