"""The format of PyMessagingFramework 2.x, written and read."""

from __future__ import annotations

import json

import pytest

from messaging import Command, Context, Event, PublishError, Reply, Service
from messaging import envelope as wire
from messaging.compose import compose_command, compose_event
from messaging.dialects import Speaking, in_our_words
from messaging.dialects.pymessagingframework import PyMessagingFramework
from messaging.envelope import Destination, Envelope, to_queue
from messaging.memory import MemoryTransport
from messaging.settings import MessagingSettings
from messaging.transport import Outgoing, QueueSpec
from tests.unit.messaging.support import SECOND, running


class Show(Command[Reply], name="ShowMessageCommand"):
    text: str


class Shown(Event, name="Shown"):
    text: str


OLD = PyMessagingFramework(frozenset({"screen"}))
COMMAND = compose_command(Show(text="grüße"), message_id="m-1")
EVENT = compose_event(Shown(text="ß"))


def test_a_command_to_an_old_queue_leaves_as_the_old_reader_expects_it() -> None:
    spoken = OLD(Outgoing(COMMAND, to_queue("screen")))

    assert json.loads(spoken.envelope.body) == {
        "message": '{"text": "gr\\u00fc\\u00dfe"}',
        "command_name": "ShowMessageCommand",
        "command_type": "command",
    }
    assert spoken.envelope.body.isascii()
    assert (spoken.envelope.message_id, spoken.envelope.type) == ("m-1", "")
    assert spoken.envelope.headers[wire.IDEMPOTENCY_KEY] == "m-1"
    assert spoken.destination == Destination("screen", absolute=True)


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic"])
def test_an_event_to_an_old_exchange_says_that_it_is_one(kind: str) -> None:
    destination = Destination("shown", f"{kind}_exchange", mandatory=False)

    spoken = OLD(Outgoing(EVENT, destination))

    assert json.loads(spoken.envelope.body)["command_type"] == "event"
    assert (spoken.destination.exchange, spoken.destination.kind) == (f"{kind}_exchange", kind)


@pytest.mark.parametrize(
    "destination",
    [to_queue("printer"), Destination("screen", "orders"), Destination("shown", "events", mandatory=False)],
)
def test_what_goes_elsewhere_is_left_as_it_is(destination: Destination) -> None:
    message = Outgoing(COMMAND, destination)

    assert OLD(message) is message


async def test_a_message_that_has_no_old_form_fails_alone() -> None:
    transport = Speaking(MemoryTransport(), OLD)
    await transport.open()
    await transport.declare([QueueSpec("screen"), QueueSpec("printer")])
    torn = Envelope("m-2", b"{", "Shown")
    batch = [Outgoing(envelope, to_queue("screen")) for envelope in (COMMAND, torn, COMMAND)]

    outcomes = await transport.publish([*batch, Outgoing(torn, to_queue("printer"))], timeout=SECOND)

    assert [type(outcome) for outcome in outcomes] == [type(None), PublishError, type(None), type(None)]
    assert "words of its reader" in str(outcomes[1])


def test_what_we_write_for_old_services_we_read_ourselves() -> None:
    spoken = OLD(Outgoing(COMMAND, to_queue("screen"))).envelope

    read = in_our_words(spoken)

    assert (read.type, json.loads(read.body), read.message_id) == ("ShowMessageCommand", {"text": "grüße"}, "m-1")


def test_a_message_without_a_command_type_is_a_command_and_is_read() -> None:
    read = in_our_words(Envelope("", b'{"message": "{\\"text\\": \\"a\\"}", "command_name": "Shown"}'))

    assert (read.type, read.body) == ("Shown", b'{"text": "a"}')


@pytest.mark.parametrize(
    "body",
    [
        b'{"command_name": ',
        b'["command_name"]',
        b'{"command_name": "Shown"}',
        b'{"command_name": "Shown", "message": {}}',
        b'{"command_name": "Shown", "message": "{}", "more": 1}',
    ],
)
def test_what_only_looks_like_it_is_left_as_it_is(body: bytes) -> None:
    envelope = Envelope("", body)

    assert in_our_words(envelope) is envelope


def test_a_message_of_ours_is_not_looked_into() -> None:
    envelope = Envelope("", b'{"message": "{}", "command_name": "Shown"}', "ours")

    assert in_our_words(envelope) is envelope


async def test_what_follows_from_messages_without_ids_has_ids_of_its_own() -> None:
    screen, ids = Service("screen"), set[str]()

    @screen.subscribes(Shown)
    async def shown(event: Shown, context: Context[None]) -> None:
        ids.add(context.send(Show(text=event.text), to="screen").message_id)

    @screen.handles(Show)
    async def show(command: Show) -> Reply:
        return Reply()

    async with running(screen) as asking:
        for text in ("a", "b"):
            body = json.dumps({"message": json.dumps({"text": text}), "command_name": "Shown", "command_type": "event"})
            await asking.send_raw(Envelope("", body.encode()))
        await asking.ask(Show(text="end"))

    assert len(ids) == 2


def test_queues_are_given_with_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not MessagingSettings().with_pymessagingframework
    monkeypatch.setenv("MESSAGING_PYMESSAGINGFRAMEWORK_QUEUES", "screen, printer")

    settings = MessagingSettings()

    assert settings.pymessagingframework_queues == ("screen", "printer")
    assert settings.with_pymessagingframework
