"""What becomes of each delivery."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, ClassVar

import pytest

from messaging import envelope as wire
from messaging.compose import compose_command
from messaging.context import Context
from messaging.envelope import Envelope
from messaging.errors import NotConfirmed, PublishError
from messaging.handler_classes import CommandHandler
from messaging.memory import MemorySubscription, MemoryTransport
from messaging.messages import Accepted, Command, Event, Failure, Reply
from messaging.retry import Retry
from messaging.service import Service
from messaging.transport import (
    DEAD_LETTER_ATTEMPTS,
    DEAD_LETTER_DETAIL,
    DEAD_LETTER_EXCHANGE,
    DEAD_LETTER_REASON,
    DEAD_LETTER_ROUTING_KEY,
    Outgoing,
    QueueSpec,
)
from tests.unit.messaging.support import REPLIES, decode_body, running


class Charged(Reply):
    charge: str


class CardRefused(Failure):
    limit_cents: int = 0


class Charge(Command[Charged], failures=(CardRefused,)):
    amount_cents: int


class Paid(Event):
    amount_cents: int


class Tell(Command[Reply]):
    pass


SOON = Retry(max_attempts=2, backoff=timedelta(0))


def payments() -> Service:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged | CardRefused:
        if command.amount_cents > 100:
            return CardRefused(reason="too much", limit_cents=100)
        return Charged(charge=f"ch_{command.amount_cents}")

    return service


async def test_a_command_is_answered_with_its_reply() -> None:
    async with running(payments()) as asking:
        reply = await asking.ask(Charge(amount_cents=7), headers={wire.TRACEPARENT: "00-ab-cd-01"})

    assert reply.text_header(wire.OUTCOME) == wire.SUCCESS
    assert reply.text_header(wire.TRACEPARENT) == "00-ab-cd-01"
    assert decode_body(Charged, reply.body) == Charged(charge="ch_7")


async def test_a_refusal_is_answered_with_its_error_code() -> None:
    async with running(payments()) as asking:
        reply = await asking.ask(Charge(amount_cents=700))

    assert (reply.text_header(wire.OUTCOME), reply.text_header(wire.ERROR_CODE)) == (
        wire.FAILURE,
        "card-refused",
    )
    assert decode_body(CardRefused, reply.body).limit_cents == 100


async def test_the_correlation_id_is_copied_and_stands_in_for_nothing_else() -> None:
    async with running(payments()) as asking:
        sent = replace(compose_command(Charge(amount_cents=1), reply_to=REPLIES), correlation_id="flow/7")
        await asking.send_raw(sent)
        assert (await asking.reply()).correlation_id == "flow/7"
        await asking.send_raw(replace(sent, correlation_id=""))
        assert (await asking.reply()).correlation_id == sent.message_id


async def test_a_plain_function_runs_beside_the_loop() -> None:
    service = Service("payments")

    @service.handles(Charge)
    def charge(command: Charge) -> Charged:
        return Charged(charge=threading.current_thread().name)

    async with running(service) as asking:
        reply = await asking.ask(Charge(amount_cents=7))

    assert decode_body(Charged, reply.body).charge.startswith("payments")


async def test_a_handler_that_raises_is_answered_retry_with_the_class_of_its_error() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        raise ConnectionResetError("provider away\nsecret detail")

    async with running(service) as asking:
        reply = await asking.ask(Charge(amount_cents=7))

    assert reply.text_header(wire.OUTCOME) == wire.RETRY
    assert reply.text_header(wire.ERROR_CODE) == "ConnectionResetError"
    assert decode_body(Failure, reply.body).reason == "provider away"


async def test_a_handler_that_returns_something_else_is_answered_retry() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        return CardRefused.model_construct() if command.amount_cents else None  # type: ignore[return-value]

    async with running(service) as asking:
        reply = await asking.ask(Charge(amount_cents=0))

    assert reply.text_header(wire.ERROR_CODE) == "TypeError"


async def test_a_handler_without_anybody_waiting_is_tried_by_the_policy_and_then_dead_lettered() -> None:
    service, attempts = Service("payments", retry=SOON), []

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        attempts.append(context.attempt)
        raise KeyError("no such card")

    async with running(service) as asking:
        sent = await asking.send(Charge(amount_cents=7), reply_to="")
        dead = await asking.dead_letter()

    assert attempts == [1, 2]
    assert dead.message_id == sent.message_id
    assert dead.text_header(DEAD_LETTER_REASON) == "handler-raised: KeyError: 'no such card'"
    assert "in charge" in dead.text_header(DEAD_LETTER_DETAIL)
    assert dead.headers[DEAD_LETTER_ATTEMPTS] == 2


async def test_a_handler_is_tried_by_a_policy_of_its_own_where_it_has_one() -> None:
    service = Service("mailer", retry=Retry(max_attempts=1))
    tries: Counter[str] = Counter()

    @service.subscribes(Paid, retry=Retry(max_attempts=3, immediate=2))
    async def paid(event: Paid) -> None:
        tries["event"] += 1
        raise OSError("mail server away")

    class Charging(CommandHandler[Charge]):
        retry = Retry(max_attempts=2, immediate=1)

        async def handle(self, command: Charge, context: Context[None]) -> Charged:
            tries["command"] += 1
            raise OSError("bank away")

    service.register(Charging())
    async with running(service) as asking:
        await asking.publish(Paid(amount_cents=7))
        assert (await asking.dead_letter()).headers[DEAD_LETTER_ATTEMPTS] == 3
        await asking.send(Charge(amount_cents=7), reply_to="")
        assert (await asking.dead_letter()).headers[DEAD_LETTER_ATTEMPTS] == 2

    assert tries == {"event": 3, "command": 2}


async def test_an_event_that_is_given_up_is_kept_with_where_it_was_published_and_how_the_traceback_ends() -> None:
    service = Service("mailer", retry=SOON)

    @service.subscribes(Paid)
    async def paid(event: Paid) -> None:
        deeper(200)

    def deeper(levels: int) -> None:
        if not levels:
            raise OSError("mail server away")
        deeper(levels - 1) if levels % 2 else (lambda: deeper(levels - 1))()

    async with running(service) as asking:
        await asking.publish(Paid(amount_cents=7))
        dead = await asking.dead_letter()

    detail = dead.text_header(DEAD_LETTER_DETAIL)
    assert detail.startswith("Traceback") and detail.endswith("OSError: mail server away\n")
    assert len(detail.encode()) <= 4096
    assert dead.headers[DEAD_LETTER_ATTEMPTS] == 2
    assert dead.headers[DEAD_LETTER_EXCHANGE] == "events"
    assert dead.headers[DEAD_LETTER_ROUTING_KEY] == Paid.wire_name


async def test_an_event_is_told_until_its_handler_takes_it() -> None:
    service, told = Service("mailer", retry=SOON), asyncio.Event()
    attempts: list[int] = []

    @service.subscribes(Paid)
    async def paid(event: Paid, context: Context[None]) -> None:
        attempts.append(context.attempt)
        if context.attempt == 1:
            raise OSError("mail server away")
        told.set()

    async with running(service) as asking:
        await asking.publish(Paid(amount_cents=7))
        await told.wait()

    assert attempts == [1, 2]


@pytest.mark.parametrize(
    ("body", "wire_type", "code"),
    [
        (b"{", "charge", "DecodeError"),
        (b'{"amount_cents": "NaN"}', "charge", "DecodeError"),
        (b"[" * 100_000, "charge", "DecodeError"),
        (b"{}", "refund", "UnknownMessageType"),
        (b"{}", "", "UnknownMessageType"),
    ],
)
async def test_what_cannot_be_used_is_dead_lettered_and_its_sender_told(body: bytes, wire_type: str, code: str) -> None:
    async with running(payments()) as asking:
        await asking.send_raw(Envelope("m-1", body, wire_type, "c-1", REPLIES))
        reply, dead = await asking.reply(), await asking.dead_letter()

    assert (reply.text_header(wire.OUTCOME), reply.text_header(wire.ERROR_CODE)) == (wire.RETRY, code)
    assert dead.body == body
    assert dead.text_header(DEAD_LETTER_REASON)


@pytest.mark.parametrize(
    "headers", [{wire.IDEMPOTENCY_KEY: "k" * 600}, {wire.IDEMPOTENCY_KEY: "a\0b"}, {wire.COMPENSATES: "k" * 600}]
)
async def test_a_key_that_no_inbox_can_hold_is_dead_lettered(headers: dict[str, wire.HeaderValue]) -> None:
    async with running(payments()) as asking:
        await asking.send(Charge(amount_cents=1), headers=headers)

        assert "idempotency key" in (await asking.dead_letter()).text_header(DEAD_LETTER_REASON)


async def test_a_command_whose_answer_nobody_takes_is_kept() -> None:
    async with running(payments()) as asking:
        sent = await asking.send(Charge(amount_cents=7), reply_to="gone")
        dead = await asking.dead_letter()

    assert dead.message_id == sent.message_id
    assert dead.text_header(DEAD_LETTER_REASON) == "reply-undeliverable"


class FlakyTransport(MemoryTransport):
    """Does not confirm the first so many publishes of each reply, though some arrive."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        if messages and messages[0].destination.routing_key == REPLIES and self.failures:
            self.failures -= 1
            return [NotConfirmed(message.envelope.message_id, "replies", "away") for message in messages]
        return await super().publish(messages, timeout=timeout)


async def test_an_answer_is_published_again_until_the_broker_confirms_it() -> None:
    async with running(payments(), FlakyTransport(failures=2)) as asking:
        reply = await asking.ask(Charge(amount_cents=7))

    assert reply.text_header(wire.OUTCOME) == wire.SUCCESS


async def test_many_commands_are_all_answered() -> None:
    async with running(payments()) as asking:
        sent = [await asking.send(Charge(amount_cents=n % 100)) for n in range(500)]
        answered = {(await asking.reply()).correlation_id for _ in sent}

    assert answered == {envelope.correlation_id for envelope in sent}


@pytest.mark.parametrize(("said", "fetched"), [({}, 128), ({"max_in_flight": 3}, 6), ({"prefetch_messages": 64}, 64)])
async def test_twice_as_many_are_fetched_as_are_handled_unless_said(said: dict[str, Any], fetched: int) -> None:
    class Noting(MemoryTransport):
        fetches: ClassVar[dict[str, int]] = {}

        async def subscribe(self, queue: str, *, prefetch_messages: int) -> MemorySubscription:
            self.fetches[queue] = prefetch_messages
            return await super().subscribe(queue, prefetch_messages=prefetch_messages)

    async with running(Service("payments", **said), Noting()):
        assert Noting.fetches["payments"] == fetched


async def test_no_more_than_max_in_flight_are_handled_at_a_time() -> None:
    service, at_once, most = Service("payments", max_in_flight=3), 0, 0

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return Charged(charge="")

    async with running(service) as asking:
        for _ in range(50):
            await asking.send(Charge(amount_cents=1))
        for _ in range(50):
            await asking.reply()

    assert most == 3


async def test_stopping_lets_what_runs_finish_and_answers_it() -> None:
    service, started, may_end = Service("payments"), asyncio.Event(), asyncio.Event()

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        started.set()
        await may_end.wait()
        return Charged(charge="late")

    async with running(service) as asking:
        await asking.send(Charge(amount_cents=1))
        await started.wait()
        stopping = asyncio.create_task(asking.runner.stop())
        await asyncio.sleep(0)
        may_end.set()
        await stopping
        assert decode_body(Charged, (await asking.reply()).body).charge == "late"


async def test_stopping_is_bounded_and_what_was_not_finished_comes_again() -> None:
    service, started = Service("payments"), asyncio.Event()

    @service.handles(Charge)
    async def charge(command: Charge) -> Charged:
        started.set()
        await asyncio.Event().wait()
        return Charged(charge="never")

    transport = MemoryTransport()
    async with running(service, transport, stop_within=timedelta(milliseconds=10)) as asking:
        sent = await asking.send(Charge(amount_cents=1))
        await started.wait()

    await transport.open()
    again = await (await transport.subscribe("payments", prefetch_messages=1)).take(1)
    assert [delivery.envelope.message_id for delivery in again] == [sent.message_id]


async def test_what_a_handler_publishes_belongs_to_the_saga_it_works_for() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        await context.publish(Paid(amount_cents=command.amount_cents))
        context.send(Tell(), to="teller")
        return Charged(charge="")

    transport = MemoryTransport()
    await transport.declare([QueueSpec("teller")])
    told = await transport.subscribe("teller", prefetch_messages=10)
    mailer = Service("mailer")
    events: asyncio.Queue[Context[None]] = asyncio.Queue()

    @mailer.subscribes(Paid)
    async def paid(event: Paid, context: Context[None]) -> None:
        events.put_nowait(context)

    async with running(mailer, transport), running(service, transport) as asking:
        headers: dict[str, wire.HeaderValue] = {wire.SAGA_ID: "saga-1", wire.TRACEPARENT: "00-ab-cd-01"}
        await asking.ask(Charge(amount_cents=7), headers=headers)
        event = await events.get()
        (sent,) = await told.take(1)

    assert (event.headers[wire.SAGA_ID], event.correlation_id) == ("saga-1", "saga-1")
    assert event.headers[wire.TRACEPARENT] == "00-ab-cd-01"
    assert sent.envelope.type == "tell"
    assert sent.envelope.text_header(wire.IDEMPOTENCY_KEY) == sent.envelope.message_id


async def test_a_second_try_publishes_with_the_same_ids() -> None:
    service, ids = Service("payments"), list[str]()

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        ids.append(context.publish(Paid(amount_cents=1)).message_id)
        ids.append(context.publish(Paid(amount_cents=1)).message_id)
        return Charged(charge="")

    async with running(service) as asking:
        for _ in range(2):
            await asking.ask(Charge(amount_cents=7), headers={wire.IDEMPOTENCY_KEY: "order-1"})

    assert ids[:2] == ids[2:]
    assert ids[0] != ids[1]


async def test_a_handler_whose_own_command_reaches_nobody_has_failed() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        context.send(Tell(), to="nobody")
        return Charged(charge="")

    async with running(service) as asking:
        reply = await asking.ask(Charge(amount_cents=7))

    assert reply.text_header(wire.ERROR_CODE) == "Unroutable"


async def test_a_context_tells_what_came_with_the_command() -> None:
    service, contexts = Service("payments"), list[Context[None]]()

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        contexts.append(context)
        return Charged(charge="")

    headers: dict[str, wire.HeaderValue] = {
        wire.IDEMPOTENCY_KEY: "order-1",
        wire.ATTEMPT: 3,
        wire.DEADLINE: "2030-01-01T00:00:00+00:00",
    }
    async with running(service) as asking:
        sent = await asking.send(Charge(amount_cents=7), headers=headers)
        await asking.reply()
        await asking.ask(Charge(amount_cents=7), headers={wire.DEADLINE: "soon"})

    first, second = contexts
    assert (first.idempotency_key, first.attempt, first.message_id) == ("order-1", 3, sent.message_id)
    assert first.deadline is not None
    assert first.deadline.year == 2030
    assert second.deadline is None
    assert second.attempt == 1


async def test_a_handler_with_a_limit_is_run_so_often_at_a_time_and_the_others_are_not_held_up() -> None:
    service = Service("payments", max_in_flight=8)
    go_on, at_once, most = asyncio.Event(), 0, 0

    @service.handles(Charge, max_in_flight=2)
    async def charge(command: Charge) -> Charged:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await go_on.wait()
        at_once -= 1
        return Charged(charge="c")

    @service.handles(Tell)
    async def tell(command: Tell) -> Reply:
        return Reply()

    async with running(service) as asking:
        charges = {(await asking.send(Charge(amount_cents=cents))).correlation_id for cents in range(5)}
        await asking.ask(Tell())  # answered while charges wait for their turn
        assert most == 2
        go_on.set()
        assert {(await asking.reply()).correlation_id for _ in range(5)} == charges
    assert most == 2


@pytest.mark.parametrize("plain", [False, True])
async def test_a_handler_moves_its_deadline_while_it_works_and_then_answers(plain: bool) -> None:
    service = Service("payments")
    if plain:

        @service.handles(Charge)
        def charge_plainly(command: Charge, context: Context[None]) -> Charged:
            context.accept(within=timedelta(minutes=5))
            context.accept(within=timedelta(minutes=10))
            return Charged(charge="c1")
    else:

        @service.handles(Charge)
        async def charge(command: Charge, context: Context[None]) -> Charged:
            context.accept(within=timedelta(minutes=5))
            context.accept(within=timedelta(minutes=10))
            return Charged(charge="c1")

    async with running(service) as asking:
        sent = await asking.send(Charge(amount_cents=7))
        replies = [await asking.reply() for _ in range(3)]

    told = [(reply.text_header(wire.OUTCOME), reply.headers.get(wire.DEADLINE_SECONDS)) for reply in replies]
    assert told == [("accepted", 300), ("accepted", 600), ("success", None)]
    assert {reply.correlation_id for reply in replies} == {sent.correlation_id}


async def test_a_command_that_no_saga_sent_has_no_reply_token() -> None:
    service = Service("payments")

    @service.handles(Charge)
    async def charge(command: Charge, context: Context[None]) -> Charged:
        return Charged(charge=context.reply_token)

    async with running(service) as asking:
        refused = await asking.ask(Charge(amount_cents=7))
        answered = await asking.ask(Charge(amount_cents=7), headers={wire.REPLY_TOKEN: "t0"})

    assert refused.text_header(wire.ERROR_CODE) == "NoReplyToken"
    assert decode_body(Charged, answered.body).charge == "t0"


def test_an_answer_that_is_to_come_in_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves no time"):
        Accepted(within=timedelta(0))
