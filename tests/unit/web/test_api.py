"""The HTTP API: sagas read and steered, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest

from orchestrator.signal_codec import ACTIONS
from orchestrator.web.words import Action
from tests.conformance.stores import command, wait
from tests.unit.cli import walls
from tests.unit.web.conftest import Site

SOON = timedelta(seconds=20)


async def test_sagas_are_listed_by_pages_the_newest_first(site: Site) -> None:
    sagas = [(await site.saga()).id for _ in range(5)]

    first = (await site.http.get("/api/sagas", params={"limit": 3})).json()
    second = (await site.http.get("/api/sagas", params={"limit": 3, "after": first["next"]})).json()

    listed = [row["saga_id"] for page in (first, second) for row in page["items"]]
    assert listed == sorted(map(str, sagas), reverse=True)
    assert second["next"] is None


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"key": "42"}, 1),
        ({"key": "43"}, 0),
        ({"saga": "create-order"}, 2),
        ({"saga": "other"}, 0),
        ({"status": "blocked"}, 1),
        ({"step": "Sending"}, 1),
    ],
)
async def test_a_list_is_narrowed_down(site: Site, asked: dict[str, str], found: int) -> None:
    await site.saga(command("Sending"), business_key="42")
    await site.blocked()

    assert len((await site.http.get("/api/sagas", params=asked)).json()["items"]) == found


async def test_a_saga_is_read_with_all_that_is_known_of_it(site: Site) -> None:
    saga = await site.saga(command(attempt=2), wait(seq=2), business_key="42")
    at = f"/api/sagas/{saga.id}"

    row = (await site.http.get(at)).json()
    timeline = (await site.http.get(f"{at}/timeline")).json()
    why = (await site.http.get(f"{at}/why")).json()

    assert (row["business_key"], row["status"], row["attempt"]) == ("42", "running", 2)
    assert [(one["step"], one["status"]) for one in timeline] == [
        ("ReservingCredit", "outstanding"),
        ("AwaitingPayment", "waiting"),
    ]
    assert "ReservingCredit sends reserve-credit to 'customers'" in " ".join(why["sentences"])
    assert {one["action"] for one in why["advice"]} >= {"cancel", "pause", "abandon"}
    assert [(await site.http.get(f"{at}/{what}")).json() for what in ("history", "audit")] == [[], []]


@pytest.mark.parametrize("what", ["", "/timeline", "/history", "/audit", "/why", "/payloads", "/states", "/events"])
async def test_a_saga_that_is_not_there_is_told_as_a_problem(site: Site, what: str) -> None:
    answer = await site.http.get(f"/api/sagas/{uuid4()}{what}")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:sagasmith:problem:unknown-saga"


def test_the_actions_are_those_of_the_core() -> None:
    brings_an_answer = {"complete"}  # and so more than a reason: it has no place in a form of these
    assert {one.value for one in Action} == set(ACTIONS) - brings_an_answer


async def test_a_blocked_saga_is_retried_and_who_asked_is_kept(walled: Site) -> None:
    saga = await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north", ends="blocked"))
    await walled.client.wait(saga.id, timeout=SOON)
    walls.ladder_is_back.set()

    asked = {"action": "retry", "reason": "the ladder is back"}
    answer = await walled.http.post(
        f"/api/sagas/{saga.id}/actions", json=asked, params={"wait": 10}, headers=await walled.csrf()
    )

    assert (answer.status_code, answer.json()["state"]) == (200, "done")
    assert (await walled.client.wait(saga.id, timeout=SOON)).status.value == "completed"
    (kept,) = (await walled.http.get(f"/api/sagas/{saga.id}/audit")).json()
    session = (await walled.http.get("/api/session")).json()
    assert (kept["action"], kept["reason"], kept["by"]) == ("retry", "the ladder is back", session["user"])
    told = (await walled.http.get(f"/api/actions/{answer.json()['id']}")).json()
    assert (told["state"], told["saga_id"]) == ("done", str(saga.id))


async def test_what_the_state_of_a_saga_does_not_allow_is_refused_with_why(walled: Site) -> None:
    saga = await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north"))
    await walled.client.wait(saga.id, timeout=SOON)

    asked = {"action": "resume", "reason": "go on"}
    answer = await walled.http.post(
        f"/api/sagas/{saga.id}/actions", json=asked, params={"wait": 10}, headers=await walled.csrf()
    )

    assert answer.status_code == 409
    assert answer.json()["detail"].endswith("refused: it is completed")


async def test_what_no_engine_answers_is_accepted_and_can_be_asked_after(site: Site) -> None:
    saga = await site.blocked()

    asked = {"action": "retry", "reason": "again"}
    answer = await site.http.post(
        f"/api/sagas/{saga}/actions", json=asked, params={"wait": 0}, headers=await site.csrf()
    )

    assert (answer.status_code, answer.json()["state"]) == (202, "asked")
    assert (await site.http.get(answer.headers["location"])).json()["state"] == "asked"
    assert (await site.http.get(f"/api/actions/{uuid4()}")).status_code == 404


async def test_a_request_repeated_under_its_key_asks_once(site: Site) -> None:
    saga, headers = await site.blocked(), {**await site.csrf(), "idempotency-key": "k-1"}
    asked = {"action": "retry", "reason": "again"}

    async def ask(**more: str) -> tuple[int, str | None]:
        answer = await site.http.post(
            f"/api/sagas/{saga}/actions", json={**asked, **more}, params={"wait": 0}, headers=headers
        )
        return answer.status_code, answer.json().get("id")

    first = await ask()

    assert await ask() == first
    assert (await ask(reason="another"))[0] == 422
    why = (await site.http.get(f"/api/sagas/{saga}/why")).json()["sentences"]
    assert sum("retry" in one for one in why) <= 1


async def test_machines_are_told_whether_the_database_answers(site: Site) -> None:
    assert [(await site.http.get(path)).status_code for path in ("/livez", "/readyz")] == [200, 200]
    await site.blocked()

    metrics = (await site.http.get("/metrics")).text

    assert 'saga_blocked_now{reason="retries_exhausted",saga="create-order"} 1.0' in metrics


async def test_failures_are_grouped_whatever_numbers_stand_in_their_errors(site: Site) -> None:
    for text in ("order 1001 is unknown", "order 1002 is unknown", "closed"):
        await site.blocked(text)

    groups = (await site.http.get("/api/failures")).json()

    assert [(one["count"], one["step"]) for one in groups] == [(2, "ReservingCredit"), (1, "ReservingCredit")]


async def test_the_overview_counts_by_saga_and_step(site: Site) -> None:
    await site.saga(command(), current_step="ReservingCredit")
    await site.blocked()

    survey = (await site.http.get("/api/overview")).json()

    assert [(one["status"], one["step"], one["count"]) for one in survey["places"]] == [
        ("blocked", "", 1),
        ("running", "ReservingCredit", 1),
    ]
    assert any(one["why"].startswith("blocked: retries_exhausted") for one in survey["stuck"])
    assert len(survey["hours"]) == 24


async def test_what_each_step_changed_in_the_state_is_told_by_pages(walled: Site) -> None:
    saga = (await walled.client.start(walls.PaintWallSaga, walls.Wall(name="north"))).id
    await walled.client.wait(saga, timeout=SOON)
    at = f"/api/sagas/{saga}/states"

    whole = (await walled.http.get(at)).json()
    first = (await walled.http.get(at, params={"limit": 1})).json()
    second = (await walled.http.get(at, params={"limit": 1, "after": first["next"]})).json()

    begun, painted = whole["items"]
    assert (begun["cause"], begun["changes"], begun["state"]["remark"]) == ("start", None, "")
    assert (painted["step"], painted["direction"], painted["cause"]) == ("Painting", "action", "on_reply")
    assert painted["changes"] == [
        {"kind": "changed", "path": "coats", "keys": ["coats"], "old": 0, "new": 1},
        {"kind": "changed", "path": "remark", "keys": ["remark"], "old": "", "new": "north is painted"},
    ]
    assert (first["items"], first["next"], second["items"], second["next"]) == ([begun], "0.0", [painted], None)
    assert {page["note"] for page in (whole, first, second)} == {""}
    for wrong in ("x", "1", "1.2.3", "-1.0", "9999999999.0"):
        assert (await walled.http.get(at, params={"after": wrong})).status_code == 422, wrong
