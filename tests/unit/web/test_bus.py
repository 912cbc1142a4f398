"""What waits between database and broker is told, whether or not there is a broker that answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker

from messaging.dead_letters import KeepsDeadLetters
from messaging.envelope import to_queue, to_subscribers
from messaging.errors import TransportError
from messaging.memory import MemoryTransport
from messaging.queue_state import QueueState
from messaging.sql.dead_letters import SqlDeadLetters
from messaging.transport import Outgoing, QueueSpec
from orchestrator.signals import LocksAsked
from orchestrator.store_records import UnmatchedMessage
from orchestrator.web import queues
from orchestrator.web.web import Letters
from tests.conformance.stores import SECOND, command
from tests.conformance.transport_backends import a_message
from tests.unit.cli import walls
from tests.unit.web.conftest import Site, opened
from tests.unit.web.test_pages import page
from tests.unit.web.test_text import SCRIPT, harmless

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class SlowTransport(MemoryTransport):
    """A broker that never answers about one queue."""

    async def queue_state(self, queue: str) -> QueueState | None:
        if queue == "banks":
            await asyncio.Event().wait()
        return await super().queue_state(queue)


def kept_by(keeper: KeepsDeadLetters, *known: str) -> Letters:
    @asynccontextmanager
    async def letters() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
        yield keeper, known

    return letters


@asynccontextmanager
async def away() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
    raise TransportError("the broker at amqp://nowhere/ does not answer within 2 s: connection refused.")
    yield


@asynccontextmanager
async def silent() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
    await asyncio.Event().wait()
    yield MemoryTransport(), ()


async def asked(site: Site) -> Any:
    answer = await site.http.get("/api/bus")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def much_waits(site: Site, words: str = "banks") -> Any:
    """A command, an event, a message that fits no saga and a wait for a resource, all with these words."""
    saga = await site.saga(command(participant=words, started_at=LONG_AGO, send_after=LONG_AGO))
    async with site.store.transaction() as tx:
        await tx.add_outgoing([Outgoing(a_message(), to_subscribers(words))])
        await tx.add_unmatched([UnmatchedMessage(words, words, b"4929-1234", "{}", saga.id)])
        await tx.change_locks((await tx.lock([saga.id])).sagas[saga.id], [LocksAsked(words, (words,), waits=True)])
    return saga


async def test_what_waits_in_the_database_is_told_with_the_sagas_concerned_and_no_broker(site: Site) -> None:
    saga = await much_waits(site)

    told, text = await asked(site), await page(site, "/bus")

    waiting = told["waiting"]
    assert [(one["participant"], one["commands"], one["sagas"]) for one in waiting["commands"]] == [
        ("banks", 1, [str(saga.id)])
    ]
    assert [(one["exchange"], one["routing_key"], one["messages"]) for one in waiting["outbox"]] == [
        ("events", "banks", 1)
    ]
    assert [(one["resource"], one["waiting"], one["held_by"]) for one in waiting["locks"]] == [("banks", 1, None)]
    assert (waiting["unmatched"]["kept"], waiting["unmatched"]["newest"][0]["saga_id"]) == (1, str(saga.id))
    assert (waiting["engines"], waiting["counted_at_most"]) == (0, 10_000)
    assert told["broker"]["queues"] == [] and "create_app(letters=...)" in told["broker"]["note"]
    assert text.count(f'href="/sagas/{saga.id}"') == 3  # of the command, what fits none, and the wait
    assert "No engine was heard of" in text and "create_app(letters=...)" in text
    assert "4929-1234" not in text and "/letters" not in text


async def test_queues_are_told_also_those_that_are_not_there(url: str) -> None:
    transport = MemoryTransport()
    await transport.declare([QueueSpec("painter"), QueueSpec("orchestrator.s.replies")])
    await transport.publish([Outgoing(a_message(), to_queue("painter"))] * 2, timeout=SECOND)
    await transport.publish([Outgoing(a_message(), to_queue("painter.dead"))], timeout=SECOND)
    await transport.subscribe("orchestrator.s.replies", prefetch_messages=1)
    async with opened(url, app=walls.app, letters=kept_by(transport, "orchestrator.s.replies")) as site:
        await much_waits(site)
        told, text = await asked(site), await page(site, "/bus")

    replies, painter, banks = told["broker"]["queues"]
    assert told["broker"]["note"] == ""
    assert (replies["ready"], replies["consumers"], replies["missing"]) == (0, 1, False)
    assert painter == {"queue": "painter", "missing": False, "ready": 2, "consumers": 0, "dead_letters": 1}
    assert banks == {"queue": "banks", "missing": True, "ready": None, "consumers": None, "dead_letters": None}
    assert text.count("✗ nobody takes from it") == 1 and text.count("✗ no such queue") == 1
    assert 'href="/letters" aria-label="1 dead letters of painter"' in text


async def test_a_broker_that_is_away_takes_nothing_from_what_the_database_tells(url: str) -> None:
    async with opened(url, letters=away) as site:
        await much_waits(site)
        told, text = await asked(site), await page(site, "/bus")

    assert [one["participant"] for one in told["waiting"]["commands"]] == ["banks"]
    assert told["broker"]["queues"] == []
    for said in (told["broker"]["note"], text):
        assert "The broker could not be asked: the broker at amqp://nowhere/ does not answer within 2 s" in said


async def test_a_broker_that_says_nothing_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "PATIENCE_SECONDS", 0.01)
    async with opened(url, letters=silent) as site:
        await much_waits(site)
        told = await asked(site)

    assert [one["participant"] for one in told["waiting"]["commands"]] == ["banks"]
    assert told["broker"] == {"queues": [], "note": "The broker did not answer within 0.01 s"}


async def test_what_a_slow_broker_answered_in_time_is_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queues, "PATIENCE_SECONDS", 1.0)
    transport = SlowTransport()
    await transport.declare([QueueSpec("painter"), QueueSpec("banks")])
    async with opened(url, letters=kept_by(transport, "painter", "banks")) as site:
        told = await asked(site)

    assert [one["queue"] for one in told["broker"]["queues"]] == ["painter"]
    assert told["broker"]["note"] == "The broker did not answer within 1 s about banks"


async def test_several_who_look_at_once_ask_the_broker_once(url: str) -> None:
    transport, opened_so_often = MemoryTransport(), 0

    @asynccontextmanager
    async def counted() -> AsyncGenerator[tuple[KeepsDeadLetters, Sequence[str]]]:
        nonlocal opened_so_often
        opened_so_often += 1
        yield transport, ()

    async with opened(url, letters=counted) as site:
        await asyncio.gather(*(asked(site) for _ in range(5)))
        await page(site, "/bus")

    assert opened_so_often == 1


async def test_where_messages_stay_in_each_process_the_dead_letters_are_told_and_why_no_more_is(url: str) -> None:
    async with opened(url) as site:
        dead = SqlDeadLetters(async_sessionmaker(site.store.engine))
        await dead.keep("painter", a_message())
        async with opened(url, letters=kept_by(dead, "painter")) as told_site:
            told = await asked(told_site)

    (painter,) = told["broker"]["queues"]
    assert painter == {"queue": "painter", "missing": False, "ready": None, "consumers": None, "dead_letters": 1}
    assert "memory://" in told["broker"]["note"]


async def test_script_in_names_of_queues_resources_and_messages_stays_text(url: str) -> None:
    words = SCRIPT[:128]
    transport = MemoryTransport()
    await transport.declare([QueueSpec(words)])
    async with opened(url, letters=kept_by(transport, words)) as site:
        await much_waits(site, words)
        text = await page(site, "/bus")

    assert harmless(text) and text.count("&lt;script&gt;") >= 5
