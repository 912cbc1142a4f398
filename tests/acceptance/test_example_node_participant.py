"""A participant in Node keeps the rules of the wire format, also when it is killed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage
from sqlalchemy import create_engine

from orchestrator import BlockingSagaClient
from tests.support.broker import Broker
from tests.support.node import NodeMissing, node_modules_for, node_program
from tests.support.programs import EXAMPLES, Program, Programs, eventually, until
from tests.support.services import in_ci

FOLDER = EXAMPLES / "node_participant"
Answer = tuple[str, str, Any]


@pytest.fixture(scope="module")
def node_environment() -> dict[str, str]:
    try:
        return node_modules_for(FOLDER)
    except NodeMissing as missing:
        if in_ci():
            raise
        pytest.skip(str(missing))


class Asker:
    """Sends commands as the wire format says, with an AMQP client alone, and hears the answers."""

    def __init__(self, channel: AbstractChannel, queue: str, replies: str) -> None:
        self._channel, self._queue, self._replies = channel, queue, replies
        self._heard: asyncio.Queue[AbstractIncomingMessage] = asyncio.Queue()
        self._answers: dict[str, Answer] = {}
        self._sent = 0

    async def listen(self) -> None:
        queue = await self._channel.declare_queue(self._replies, durable=True)
        await queue.consume(self._heard.put, no_ack=True)

    async def send(self, name: str, body: Any, key: str, compensates: str = "") -> str:
        """Send without waiting; returns the message id."""
        self._sent += 1
        message_id = f"message-{self._sent}"
        headers: dict[str, Any] = {"idempotency-key": key, "attempt": self._sent}
        if compensates:
            headers["compensates"] = compensates
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        message = aio_pika.Message(
            raw,
            message_id=message_id,
            correlation_id=message_id,
            type=name,
            reply_to=self._replies,
            headers=headers,
            delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        )
        await self._channel.default_exchange.publish(message, routing_key=self._queue)
        return message_id

    async def answer_to(self, message_id: str) -> Answer:
        """Outcome, error code and body of the answer to this message.

        One killed between its answer and its acknowledgement answers again: always the same.
        """
        while message_id not in self._answers:
            reply = await asyncio.wait_for(self._heard.get(), 90)
            headers, answered = reply.headers, str(reply.correlation_id)
            answer = str(headers["outcome"]), str(headers.get("error-code", "")), json.loads(reply.body)
            assert self._answers.setdefault(answered, answer) == answer
        return self._answers[message_id]

    async def ask(self, name: str, body: Any, key: str, compensates: str = "") -> Answer:
        return await self.answer_to(await self.send(name, body, key, compensates))


@pytest.fixture
async def asker(amqp_url: str, prefix: str, broker: Broker) -> AsyncIterator[Asker]:
    async with await aio_pika.connect(amqp_url) as connection:
        asker = Asker(
            await connection.channel(), broker.service_queue(f"{prefix}labels"), broker.queue(f"{prefix}replies")
        )
        await asker.listen()
        yield asker


@pytest.fixture
def participant(
    programs_on_rabbit: Programs, node_environment: dict[str, str], amqp_url: str, prefix: str
) -> Callable[[], Program]:
    def start() -> Program:
        program = programs_on_rabbit.start(
            str(node_program()),
            str(FOLDER / "participant.js"),
            **{**node_environment, "AMQP_URL": amqp_url, "PREFIX": prefix, "JOURNAL": "labels.jsonl"},
        )
        program.wait_until_it_says("printing labels")
        return program

    return start


PARCEL = {"parcel_id": "7", "address": "1 Main Street"}
PRINTED: Answer = ("success", "", {"label": "L-7"})
VOIDED: Answer = ("success", "", {"label": "L-7"})
NOTHING_TO_UNDO: Answer = ("success", "nothing-to-undo", {})
UNDONE: Answer = ("failure", "undone", {})


async def test_a_repeated_command_is_answered_as_before_and_not_done_again(
    asker: Asker, participant: Callable[[], Program], programs_on_rabbit: Programs
) -> None:
    participant()

    assert await asker.ask("print-label", PARCEL, "a") == PRINTED
    assert await asker.ask("print-label", PARCEL, "a") == PRINTED
    outcome, code, body = await asker.ask("print-label", PARCEL, "another")

    assert (outcome, code, body["reason"]) == ("failure", "label-refused", "this parcel has a label")
    assert labels_in(programs_on_rabbit.folder / "labels.jsonl") == ["printed"]


async def test_what_was_done_is_undone_once(
    asker: Asker, participant: Callable[[], Program], programs_on_rabbit: Programs
) -> None:
    participant()
    assert await asker.ask("print-label", PARCEL, "a") == PRINTED

    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == VOIDED
    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == VOIDED

    assert labels_in(programs_on_rabbit.folder / "labels.jsonl") == ["printed", "voided"]


async def test_what_was_undone_before_it_came_is_refused_when_it_comes(
    asker: Asker, participant: Callable[[], Program], programs_on_rabbit: Programs
) -> None:
    participant()

    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == NOTHING_TO_UNDO
    assert await asker.ask("print-label", PARCEL, "a") == UNDONE
    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == NOTHING_TO_UNDO

    assert labels_in(programs_on_rabbit.folder / "labels.jsonl") == []


async def test_what_was_refused_needs_no_undoing(asker: Asker, participant: Callable[[], Program]) -> None:
    participant()
    assert (await asker.ask("print-label", {"parcel_id": "7"}, "a"))[:2] == ("failure", "label-refused")

    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == NOTHING_TO_UNDO
    assert (await asker.ask("print-label", PARCEL, "a"))[:2] == ("failure", "label-refused")


async def test_what_cannot_be_read_is_answered_retry_and_kept_as_a_dead_letter(
    asker: Asker, participant: Callable[[], Program], broker: Broker, prefix: str
) -> None:
    participant()

    assert (await asker.ask("print-label", b"{", "a"))[:2] == ("retry", "SyntaxError")
    assert (await asker.ask("burn-label", PARCEL, "b"))[:2] == ("retry", "TypeError")

    async def both_are_kept() -> bool:
        return await broker.depth(f"{prefix}labels.dead") == 2

    await until(both_are_kept)


async def test_killed_at_any_point_it_goes_on_where_its_journal_ends(
    asker: Asker, participant: Callable[[], Program], programs_on_rabbit: Programs
) -> None:
    first = participant()
    assert await asker.ask("print-label", PARCEL, "a") == PRINTED
    assert await asker.ask("void-label", {"parcel_id": "8"}, "undo b", compensates="b") == NOTHING_TO_UNDO
    first.kill()
    journal = programs_on_rabbit.folder / "labels.jsonl"
    with journal.open("a") as torn:
        torn.write('[{"key":"c","answer":{"outco')

    repeated = await asker.send("print-label", PARCEL, "a")
    barred = await asker.send("print-label", {**PARCEL, "parcel_id": "8"}, "b")
    torn_one = await asker.send("print-label", {**PARCEL, "parcel_id": "9"}, "c")
    participant()

    assert await asker.answer_to(repeated) == PRINTED
    assert await asker.answer_to(barred) == UNDONE
    assert await asker.answer_to(torn_one) == ("success", "", {"label": "L-9"})
    assert labels_in(journal) == ["printed", "printed"]


async def test_a_second_process_stands_by_and_takes_over_with_all_that_was_done(
    asker: Asker, participant: Callable[[], Program], programs_on_rabbit: Programs
) -> None:
    first, _second = participant(), participant()
    assert await asker.ask("print-label", PARCEL, "a") == PRINTED
    first.kill()

    assert await asker.ask("print-label", PARCEL, "a") == PRINTED
    assert await asker.ask("void-label", PARCEL, "undo a", compensates="a") == VOIDED
    assert labels_in(programs_on_rabbit.folder / "labels.jsonl") == ["printed", "voided"]


def test_it_takes_part_in_sagas(
    programs_on_rabbit: Programs,
    participant: Callable[[], Program],
    asker: Asker,
    postgres_database: str,
    prefix: str,
    broker: Broker,
) -> None:
    for queue in ("couriers", "orchestrator.main.replies", "orchestrator.main.events"):
        broker.service_queue(f"{prefix}{queue}")
    programs, environment = programs_on_rabbit, {"ORCHESTRATOR_DATABASE_URL": postgres_database}
    programs.done(programs.saga("migrate", **environment))
    targets = ("node_participant.sagas:app", "node_participant.sagas:couriers")
    programs.saga("run", *targets, **environment, ANSWER_SECONDS="2").wait_until_it_says("Running")

    parcels: dict[str, dict[str, Any]] = {
        "completed": {**PARCEL, "parcel_id": "light"},
        "refused": {**PARCEL, "parcel_id": "nowhere", "address": ""},
        "undone": {**PARCEL, "parcel_id": "heavy", "kilograms": 99},
    }
    started = {name: started_parcel(programs, environment, state) for name, state in parcels.items()}
    saga_of = {name: programs.done(program).split()[0] for name, program in started.items()}
    participant()  # it comes late; commands to a queue that is not there wait for it

    assert end_of(postgres_database, saga_of["completed"]) == "completed"
    assert end_of(postgres_database, saga_of["refused"]) == "compensated"
    assert end_of(postgres_database, saga_of["undone"]) == "compensated"
    journal = programs.folder / "labels.jsonl"
    eventually(lambda: sorted(labels_in(journal)) == ["printed", "printed", "voided"])


def started_parcel(programs: Programs, environment: dict[str, str], state: dict[str, Any]) -> Program:
    arguments = ("start", "send-parcel", "--app", "node_participant.sagas:app", "--data", json.dumps(state))
    return programs.saga(*arguments, **environment)


def end_of(database: str, saga_id: str) -> str:
    engine = create_engine(database.replace("+asyncpg", "+psycopg"))
    try:
        return BlockingSagaClient(engine).wait(UUID(saga_id), timeout=timedelta(seconds=30)).status.value
    finally:
        engine.dispose()


def labels_in(journal: Path) -> list[str]:
    """What became of labels, line by line, without what a crash has left unfinished."""
    changes = [change for line in journal.read_text().splitlines() for change in json.loads(line)]
    return [change["state"] for change in changes if "state" in change]
