"""A step completed over HTTP, as a webhook does: by the reply token alone."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from uuid import UUID

import httpx
import pytest

from orchestrator.instance import StepKey
from orchestrator.sql.installation import installation_of
from orchestrator.web.rate import Rate
from tests.conformance.stores import command
from tests.unit.cli import walls
from tests.unit.web.conftest import TOKEN, Site, opened
from tests.unit.web.test_api import SOON

ELSEWHERE = ("192.0.2.7", 50000)


async def _token(site: Site) -> tuple[UUID, str]:
    """A saga whose painter answers later, and the token to do so."""
    while not walls.tokens.empty():
        walls.tokens.get_nowait()
    saga = (await site.client.start(walls.PaintWallSaga, walls.Wall(name="north", ends="later"))).id
    return saga, await asyncio.to_thread(walls.tokens.get, timeout=SOON.total_seconds())


async def _complete(site: Site, token: str, **more: Any) -> httpx.Response:
    return await site.http.post("/api/complete", params={"wait": 10}, json={"token": token, **more})


async def test_a_command_is_answered_by_its_token_and_the_same_answer_again_is_one(walled: Site) -> None:
    saga, token = await _token(walled)

    answers = [await _complete(walled, token, reason="the inspector came") for _ in range(2)]

    assert [(one.status_code, one.json()) for one in answers] == [(200, {"state": "done"})] * 2
    assert (await walled.client.wait(saga, timeout=SOON)).status.value == "completed"
    (kept,) = (await walled.http.get(f"/api/sagas/{saga}/audit")).json()
    assert (kept["action"], kept["reason"], kept["by"]) == ("complete", "the inspector came", "reply token, over HTTP")


async def test_another_answer_is_refused_with_why(walled: Site) -> None:
    saga, token = await _token(walled)
    assert (await _complete(walled, token)).status_code == 200
    await walled.client.wait(saga, timeout=SOON)

    for _ in range(2):  # what was refused is asked anew
        late = await _complete(walled, token, failure="paint-refused", fields={"reason": "wet"})
        assert (late.status_code, late.json()["type"]) == (409, "urn:sagasmith:problem:refused")
        assert "step is succeeded" in late.json()["detail"] or "completed" in late.json()["detail"]
    assert len((await walled.http.get(f"/api/sagas/{saga}/audit")).json()) == 3


async def test_a_failure_is_an_answer_too(walled: Site) -> None:
    saga, token = await _token(walled)

    answer = await _complete(walled, token, failure="paint-refused", fields={"reason": "the wall is wet"})

    assert answer.status_code == 200
    row = await walled.client.wait(saga, timeout=SOON)
    assert (row.status.value, row.error_text) == ("compensated", "the wall is wet")


async def _waiting(site: Site) -> tuple[UUID, str]:
    """A saga that no engine looks after, and the token of its command."""
    saga = await site.saga(command())
    async with site.store.engine.connect() as connection:
        tokens = (await connection.run_sync(installation_of)).tokens
    assert tokens is not None
    return saga.id, tokens.token_of(saga.steps[StepKey("ReservingCredit")].command_id)


async def test_the_token_is_enough_and_what_no_engine_takes_stays(url: str) -> None:
    async with opened(url, peer=ELSEWHERE, token=TOKEN) as site:
        saga, token = await _waiting(site)

        answers = [
            await site.http.post("/api/complete", params={"wait": 0}, json={"token": token, "fields": {"a": [1.5]}})
            for _ in range(2)
        ]
        stranger = await site.http.get("/api/sagas")

        assert [(one.status_code, one.json()) for one in answers] == [(202, {"state": "asked"})] * 2
        assert stranger.status_code == 401
        async with site.store.transaction() as tx:
            (signal,) = await tx.pending_signals([saga])
        assert signal.kind == "complete" and json.loads(json.loads(signal.body)["body"]) == {"a": [1.5]}


async def test_a_token_that_is_made_up_is_unknown_and_neither_repeated_nor_logged(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    _, token = await _waiting(site)
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), "a-token-like-no-other", "ü"):
        answer = await _complete(site, wrong)
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:sagasmith:problem:unknown-token")
        assert wrong not in answer.text
    assert (await _complete(site, token, fields="not-a-word-of-it")).status_code == 422

    assert "no-other" not in caplog.text and token not in caplog.text and "not-a-word" not in caplog.text


@pytest.mark.parametrize(
    "more",
    [
        b'"fields": {"a": 1e999}',
        b'"fields": {"a": "\\ud800"}',
        b'"fields": {"a": "\\u0000"}',
        b'"fields": {"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'"failure": "\\u0000"',
        b'"reason": "\\u0000"',
        b'"fields": []',
    ],
    ids=["inf", "surrogate", "nul", "deep", "code", "reason", "list"],
)
async def test_an_answer_that_cannot_be_stored_is_refused(site: Site, more: bytes) -> None:
    content = b'{"token": "%s", %s}' % ((await _waiting(site))[1].encode(), more)

    answer = await site.http.post("/api/complete", content=content, headers={"content-type": "application/json"})

    assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    ("settings", "status", "kind"),
    [({"complete_per_second": 0}, 429, "too-many"), ({"read_only": True}, 403, "read-only")],
)
async def test_no_answer_is_taken_where_none_may_come(
    url: str, settings: dict[str, Any], status: int, kind: str
) -> None:
    async with opened(url, **settings) as site:
        answer = await _complete(site, (await _waiting(site))[1])

    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:sagasmith:problem:{kind}")


def test_a_rate_lets_a_seconds_worth_through_and_then_so_many_a_second() -> None:
    now = [100.0]
    rate = Rate(3, clock=lambda: now[0])

    assert [rate.take() for _ in range(4)] == [True, True, True, False]
    now[0] += 0.4
    assert [rate.take() for _ in range(2)] == [True, False]
    now[0] += 60
    assert [rate.take() for _ in range(4)] == [True, True, True, False]
