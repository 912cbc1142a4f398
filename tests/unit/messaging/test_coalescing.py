"""Services whose commands and answers travel many in one message."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from messaging import envelope as wire
from messaging.batches import BATCH, batch_of, item_of
from messaging.coalescing import Coalescing
from messaging.compose import compose_command
from messaging.envelope import Envelope, to_queue
from messaging.errors import NotConfirmed, PublishError, SettingsError
from messaging.memory import MemoryTransport
from messaging.messages import Command, Reply
from messaging.middleware import DeliverNext, Middleware, Settled
from messaging.retry import Retry
from messaging.service import Service
from messaging.settings import MessagingSettings
from messaging.splitting import Splitting, subscribed
from messaging.testing.transports.backend import eventually
from messaging.transport import DEAD_LETTER_REASON, Delivery, Outgoing, QueueSpec
from messaging.wiring import transport_from
from tests.unit.messaging.support import REPLIES, SECOND, Asking, running

PATIENCE = 30.0


class Painted(Reply):
    wall: str


class Paint(Command[Painted]):
    wall: str


def painter() -> Service:
    service = Service("painter", retry=Retry(max_attempts=2, backoff=timedelta(0)))

    @service.handles(Paint)
    async def paint(command: Paint) -> Painted:
        if command.wall.startswith("wet"):
            raise ValueError(command.wall)
        return Painted(wall=command.wall)

    return service


class Recorded(MemoryTransport):
    """Notes what passes, and refuses what it is told to, as a full queue does."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[Envelope] = []
        self.full: set[str] = set()

    async def publish(self, messages: Sequence[Outgoing], *, timeout: timedelta) -> list[PublishError | None]:
        outcomes: list[PublishError | None] = []
        for outgoing in messages:
            self.passed.append(outgoing.envelope)
            if outgoing.destination.routing_key in self.full:
                message_id, to = outgoing.envelope.message_id, outgoing.destination.routing_key
                outcomes.append(NotConfirmed(message_id, to, "refused: the queue is full"))
            else:
                outcomes += await super().publish([outgoing], timeout=timeout)
        return outcomes

    def batches(self) -> int:
        return sum(one.content_type == BATCH for one in self.passed)


async def send_joined(asking: Asking, *envelopes: Envelope) -> None:
    joining = Coalescing(asking.transport, {asking.service.name})
    messages = [Outgoing(envelope, to_queue(asking.service.name), may_join=True) for envelope in envelopes]
    assert await joining.publish(messages, timeout=SECOND) == [None] * len(envelopes)


def order(wall: str, reply_to: str = REPLIES) -> Envelope:
    return compose_command(Paint(wall=wall), reply_to=reply_to)


async def test_items_that_cannot_be_used_or_fail_are_answered_or_kept_alone() -> None:
    good = [order(str(number)) for number in range(3)]
    undecodable = Envelope("m-1", b'{"wall": 7}', "paint", correlation_id="c-1", reply_to=REPLIES)
    unknown = Envelope("m-2", b"{}", "sand", correlation_id="c-2", reply_to=REPLIES)
    failing, asked = order("wet, nobody waits", reply_to=""), order("wet, somebody waits")
    async with running(painter()) as asking:
        await send_joined(asking, good[0], undecodable, failing, good[1], unknown, asked, good[2])
        replies = [await asyncio.wait_for(asking.reply(), PATIENCE) for _ in range(6)]
        letters = [(await asyncio.wait_for(asking.dead.take(1), PATIENCE))[0].envelope for _ in range(3)]

    await asking.transport.open()
    again = await asking.transport.subscribe("painter", prefetch_messages=1)
    assert await again.backlog() == 0, "the batch is settled"
    told = {reply.correlation_id: reply.text_header(wire.OUTCOME) for reply in replies}
    assert told == {one.message_id: "success" for one in good} | {
        asked.message_id: "retry",
        "c-1": "retry",
        "c-2": "retry",
    }
    why = {letter.message_id: str(letter.headers[DEAD_LETTER_REASON]) for letter in letters}
    assert why.keys() == {"m-1", "m-2", failing.message_id}
    assert "wall" in why["m-1"] and "'sand'" in why["m-2"] and "ValueError" in why[failing.message_id]
    assert {letter.body for letter in letters} == {undecodable.body, unknown.body, failing.body}


class Seen(Middleware):
    """Notes what reaches the middleware of a service."""

    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    async def around_delivery(self, delivery: Delivery, call_next: DeliverNext) -> Settled:
        self.deliveries.append(delivery)
        return await call_next(delivery)


async def test_middleware_sees_each_item_with_its_own_ids_and_trace() -> None:
    seen = Seen()
    service = painter()
    service.use(seen)
    traces = [f"00-{number:032x}-{number:016x}-01" for number in (1, 2)]
    sent = [compose_command(Paint(wall=trace), reply_to=REPLIES, headers={wire.TRACEPARENT: trace}) for trace in traces]
    async with running(service) as asking:
        await send_joined(asking, *sent)
        replies = [await asyncio.wait_for(asking.reply(), PATIENCE) for _ in sent]

    assert [one.envelope.message_id for one in seen.deliveries] == [one.message_id for one in sent]
    assert [reply.text_header(wire.TRACEPARENT) for reply in replies] == traces


async def test_answers_are_joined_and_after_a_refusal_leave_one_by_one() -> None:
    transport = Recorded()
    async with running(painter(), Coalescing(transport, {REPLIES})) as asking:
        transport.full.add(REPLIES)
        sent = [order(str(number)) for number in range(4)]
        await send_joined(asking, *sent)
        await eventually(lambda: transport.batches() == 2, "the commands, and the refused answers")
        transport.full.clear()
        answered = [await asyncio.wait_for(asking.reply(), PATIENCE) for _ in sent]

    assert {one.correlation_id for one in answered} == {one.message_id for one in sent}
    assert transport.batches() == 2, "what was refused is never joined again"


class Reconnecting:
    """A subscription whose connection is lost, and made anew, while it is waited for."""

    queue = "orders"

    def __init__(self, *lives: list[Delivery]) -> None:
        self._lives, self.epoch = list(lives), 1
        self.acked: list[Delivery] = []

    async def take(self, limit: int) -> list[Delivery]:
        await asyncio.sleep(0)
        self._lives.pop(0)
        self.epoch += 1
        return self.take_nowait(limit)

    def take_nowait(self, limit: int) -> list[Delivery]:
        taken = self._lives[0][:limit]
        del self._lives[0][:limit]
        return taken

    async def ack(self, deliveries: Sequence[Delivery]) -> None:
        self.acked.extend(deliveries)

    async def retry_later(self, delivery: Delivery, after: timedelta) -> None: ...

    async def dead_letter(self, delivery: Delivery, reason: str, detail: str = "") -> None: ...

    async def backlog(self) -> int:
        return 0

    async def close(self) -> None: ...


async def test_after_a_lost_connection_its_items_are_forgotten_and_those_of_the_new_one_are_not() -> None:
    old, new = (batch_of([item_of(Envelope(f"{life}-{n}", b"{}")) or b"" for n in range(3)]) for life in ("old", "new"))
    subscription = Reconnecting([Delivery(old, "orders", 1, 1)], [Delivery(new, "orders", 1, 2)])
    splitting = Splitting(subscription, MemoryTransport())
    first = await splitting.take(1)

    taken = splitting.take_nowait(5)
    assert [one.envelope.message_id for one in taken] == ["old-1", "old-2"]
    taken = await asyncio.wait_for(splitting.take(5), PATIENCE)

    assert [one.envelope.message_id for one in taken] == ["new-0", "new-1", "new-2"]
    await splitting.ack(first)
    await splitting.ack(taken)
    assert [one.epoch for one in subscription.acked] == [2], "the other batch comes again"


async def test_a_batch_that_comes_again_to_a_full_queue_waits_and_holds_nobody_up() -> None:
    transport = Recorded()
    await transport.declare([QueueSpec("orders")])
    messages = [Outgoing(Envelope(f"m-{n}", b"{}"), to_queue("orders"), may_join=True) for n in range(3)]
    await Coalescing(transport, {"orders"}).publish(messages, timeout=SECOND)
    first = await subscribed(transport, "orders", prefetch_messages=5)
    assert len(await first.take(3)) == 3
    await transport.close()
    await transport.open()
    await transport.publish([Outgoing(Envelope("later", b"{}"), to_queue("orders"))], timeout=SECOND)
    transport.full.add("orders")

    subscription = await subscribed(transport, "orders", prefetch_messages=5)
    epoch = subscription.epoch
    (later,) = await asyncio.wait_for(subscription.take(5), PATIENCE)
    assert later.envelope.message_id == "later"
    assert await subscription.backlog() == 3, "what is on its way back is not taken yet"
    assert subscription.epoch > epoch, "whoever counts what was there counts again"
    transport.full.clear()
    taken: list[Delivery] = []
    while len(taken) < 3:
        taken += await asyncio.wait_for(subscription.take(5), PATIENCE)
    assert {(one.envelope.message_id, one.part) for one in taken} == {(f"m-{n}", None) for n in range(3)}
    await subscription.ack([later, *taken])
    await subscription.close()
    await first.close()


@pytest.mark.usefixtures("nothing_configured")
async def test_the_setting_names_queues_and_nothing_is_joined_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(transport_from(MessagingSettings()), MemoryTransport)
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "painter, orchestrator.main.replies")

    settings = MessagingSettings()

    assert settings.coalesce_to == ("painter", "orchestrator.main.replies")
    assert isinstance(transport_from(settings), Coalescing)


@pytest.mark.usefixtures("nothing_configured")
def test_batches_for_a_service_on_another_framework_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESSAGING_COALESCE_TO", "painter,mixer")
    monkeypatch.setenv("MESSAGING_PYMESSAGINGFRAMEWORK_QUEUES", "painter")
    with pytest.raises(SettingsError, match="both name painter: "):
        transport_from(MessagingSettings())


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in MessagingSettings.model_fields:
        monkeypatch.delenv(f"MESSAGING_{name.upper()}", raising=False)
