"""Server-sent events: what changes is told, an end is told as one, and streams are bounded."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.instance import SagaStatus
from orchestrator.status import SagaFilter, SagaRow, get_saga
from orchestrator.web import live
from orchestrator.web.database import Database
from orchestrator.web.live import Seen, Streams, look_at_list, look_at_saga, streamed
from orchestrator.web.problems import Problem
from tests.conformance.stores import changing, command
from tests.unit.web.conftest import Site


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LOOK_EVERY_SECONDS", 0.0)


def events(chunks: Iterable[Any]) -> list[tuple[str, Any]]:
    found = []
    for chunk in chunks:
        head, _, data = str(chunk).strip().partition("\ndata: ")
        found.append((head.partition("\n")[0].removeprefix("event: "), json.loads(data)))
    return found


async def test_a_saga_is_told_at_once_after_each_change_and_at_its_end(site: Site) -> None:
    saga = await site.saga(command())
    stream = await streamed(Streams(), look_at_saga(Database(site.store.engine), saga.id))
    told = [await anext(stream.body_iterator)]  # type: ignore[call-overload]
    async with site.store.transaction() as tx:
        locked = (await tx.lock([saga.id])).sagas[saga.id]
        await tx.save([changing(locked, status=SagaStatus.COMPLETED, wake_at=None, ended_at=locked.updated_at)])

    told += [chunk async for chunk in stream.body_iterator]

    first, changed, end = events(told)
    assert (first[0], first[1]["status"]) == ("saga", "running")
    assert (changed[0], changed[1]["status"]) == ("saga", "completed")
    assert end == ("end", {})


async def test_a_stream_does_not_end_on_a_row_that_is_newer_than_its_mark(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga = await site.saga(command())
    look = look_at_saga(Database(site.store.engine), saga.id)
    before = await look()

    def ended_meanwhile(*args: Any, **kwargs: Any) -> SagaRow | None:
        row = get_saga(*args, **kwargs)
        return row and replace(row, status=SagaStatus.COMPLETED)

    monkeypatch.setattr(live, "get_saga", ended_meanwhile)
    seen = await look()

    assert seen.data.status is SagaStatus.COMPLETED
    assert (seen.mark, seen.last) == (before.mark, False)  # so the next look tells of it, and then of the end


async def test_a_list_is_told_again_when_its_first_page_changes(site: Site) -> None:
    await site.saga(business_key="42")
    look = look_at_list(Database(site.store.engine), SagaFilter(saga="create-order"), 50)
    stream = await streamed(Streams(), look)
    first = await anext(stream.body_iterator)  # type: ignore[call-overload]
    await site.saga(business_key="43")

    second = await anext(stream.body_iterator)  # type: ignore[call-overload]

    told = [sorted(row["business_key"] for row in data) for _, data in events([first, second])]
    assert told == [["42"], ["42", "43"]]


async def test_there_are_only_so_many_streams_and_each_gives_its_place_back() -> None:
    async def look() -> Seen:
        return Seen("saga", "1", {}, last=True)

    streams = Streams(most=1)
    first = await streamed(streams, look)
    opened = await anext(first.body_iterator)  # type: ignore[call-overload]
    with pytest.raises(Problem, match="1 streams are open") as refused:
        await streamed(streams, look)
    rest = [chunk async for chunk in first.body_iterator]

    assert refused.value.status == 503
    assert len(events([opened, *rest])) == 2
    await streamed(streams, look)


async def test_streams_end_when_whoever_serves_them_does() -> None:
    async def look() -> Seen:
        return Seen("saga", "1", {})

    streams = Streams()
    stream = await streamed(streams, look)
    await anext(stream.body_iterator)  # type: ignore[call-overload]
    streams.close()

    assert [chunk async for chunk in stream.body_iterator] == []


async def test_a_stream_ends_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LONGEST_SECONDS", 0.0)

    async def look() -> Seen:
        return Seen("saga", "1", {})

    stream = await streamed(Streams(), look)

    assert len([chunk async for chunk in stream.body_iterator]) == 1


async def test_what_a_client_has_seen_is_not_told_again(site: Site) -> None:
    saga = await site.saga(status=SagaStatus.COMPLETED, wake_at=None)
    at = f"/api/sagas/{saga.id}/events"
    (mark,) = re.findall(r"id: (\w+)", (await site.http.get(at)).text)

    for said in ({"params": {"seen": mark}}, {"headers": {"last-event-id": mark}}):
        text = (await site.http.get(at, **said)).text  # type: ignore[arg-type]
        assert "event: saga" not in text and "event: end" in text


async def test_events_are_answered_over_http(site: Site) -> None:
    saga = await site.saga(status=SagaStatus.COMPLETED, wake_at=None)

    answer = await site.http.get(f"/api/sagas/{saga.id}/events")

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [line for line in answer.text.splitlines() if line.startswith("event")] == ["event: saga", "event: end"]
