"""CloudEvents, written for the SDK to read and read as the SDK writes them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from messaging import Bus, Event, Retry, Service
from messaging.codec import DEFAULT_LIMITS
from messaging.compose import compose_command, compose_event
from messaging.dialects import Speaking, in_our_words
from messaging.dialects.cloudevents import CloudEvents
from messaging.envelope import Destination, Envelope, to_queue, to_subscribers
from messaging.errors import DecodeError
from messaging.memory import MemoryTransport
from messaging.messages import Command, Reply
from messaging.settings import MessagingSettings
from messaging.transport import Binding, Outgoing, QueueSpec
from messaging.wiring import transport_from
from tests.unit.messaging.support import running

SOURCE = "/läden/shop 1"


class OrderPaid(Event, name="orders.paid"):
    order_id: str
    cents: int = 0


class Pay(Command[Reply]): ...


def spoken(outgoing: Outgoing) -> Envelope:
    return CloudEvents(SOURCE)(outgoing).envelope


def test_the_sdk_reads_an_event_as_it_leaves() -> None:
    sent = compose_event(OrderPaid(order_id="42"), app_id="payments")

    envelope = spoken(Outgoing(sent, to_subscribers("orders.paid")))
    headers = {name: str(value) for name, value in envelope.headers.items()}
    event = from_http_event(HTTPMessage({"content-type": envelope.content_type, **headers}, envelope.body))

    assert (event.get_id(), event.get_source(), event.get_type()) == (sent.message_id, SOURCE, "orders.paid")
    assert (event.get_specversion(), event.get_time()) == ("1.0", sent.timestamp)
    assert event.get_data() == {"order_id": "42", "cents": 0}


def test_what_we_need_ourselves_stays_and_commands_and_replies_are_left_as_they_are() -> None:
    sent = compose_event(OrderPaid(order_id="42"))
    envelope = spoken(Outgoing(sent, to_subscribers("orders.paid")))
    assert (envelope.type, envelope.message_id, envelope.body) == (sent.type, sent.message_id, sent.body)
    assert sent.headers.items() <= envelope.headers.items()

    command = Outgoing(compose_command(Pay()), to_queue("payments"))
    reply = Outgoing(Envelope("m", b"{}", "reply"), Destination("replies", absolute=True, mandatory=False))
    assert [CloudEvents(SOURCE)(message) for message in (command, reply)] == [command, reply]


ATTRIBUTES: dict[str, Any] = {
    "id": "event 7",
    "source": SOURCE,
    "type": "orders.paid",
    "time": datetime(2026, 1, 31, 23, 59, 58, tzinfo=UTC),
    "datacontenttype": "application/json",
    "traceparent": "00-1-2-01",
}


def delivered(message: HTTPMessage) -> Envelope:
    """What a program with the SDK puts on the broker: no property but the content type."""
    headers = dict(message.headers)
    content_type = headers.pop("content-type", "application/json")
    return Envelope("", message.body, content_type=content_type, headers={**headers})


@pytest.mark.parametrize("written", [to_structured_event, to_binary_event])
def test_an_event_of_the_sdk_is_read_in_either_mode(written: Any) -> None:
    event = CloudEvent(attributes=dict(ATTRIBUTES), data={"order_id": "42", "cents": 7})

    envelope = in_our_words(delivered(written(event)))

    assert (envelope.type, json.loads(envelope.body)) == ("orders.paid", {"order_id": "42", "cents": 7})
    assert (envelope.timestamp, envelope.content_type) == (ATTRIBUTES["time"], "application/json")
    assert envelope.headers["traceparent"] == "00-1-2-01"
    assert envelope.message_id == in_our_words(delivered(to_structured_event(event))).message_id != ""


def test_an_event_that_came_over_amqp_1_is_read_by_its_headers() -> None:
    headers = {f"cloudEvents:{name}": str(value) for name, value in ATTRIBUTES.items()}

    assert (
        in_our_words(Envelope("", b"{}", headers={**headers, "cloudEvents:specversion": "1.0"})).type == "orders.paid"
    )


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"{", "not JSON"),
        (b"[]", "no object"),
        (b'{"specversion": "1.0", "id": "1", "source": "/"}', "it has no type"),
        (b'{"specversion": "0.3", "id": "1", "source": "/", "type": "t"}', "its specversion is '0.3'"),
        (b'{"specversion": "1.0", "id": "1", "source": "/", "type": "t", "data_base64": "!"}', "data_base64"),
    ],
)
def test_what_calls_itself_a_cloudevent_and_is_none_is_refused(body: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        in_our_words(Envelope("m", body, content_type="application/cloudevents+json; charset=utf-8"), DEFAULT_LIMITS)


async def test_a_service_is_told_of_cloudevents_and_dead_letters_keep_them_as_they_came() -> None:
    mailer, told = Service("mailer"), list[OrderPaid]()

    @mailer.subscribes(OrderPaid)
    async def paid(event: OrderPaid) -> None:
        told.append(event)

    event = CloudEvent(attributes=dict(ATTRIBUTES), data={"order_id": "42"})
    broken = delivered(to_structured_event(CloudEvent(attributes=dict(ATTRIBUTES), data={"cents": 1})))
    async with running(mailer, Speaking(MemoryTransport(), CloudEvents(SOURCE))) as asking:
        for envelope in (delivered(to_structured_event(event)), broken):
            await asking.send_raw(envelope, to_subscribers("orders.paid"))
        await asking.publish(OrderPaid(order_id="43"))
        letter = await asking.dead_letter()

    assert [event.order_id for event in told] == ["42", "43"]
    assert (letter.body, letter.content_type) == (broken.body, "application/cloudevents+json")


async def test_a_cloudevent_is_tried_by_the_policy_of_its_handler() -> None:
    mailer, tries = Service("mailer", retry=Retry(max_attempts=1)), list[str]()

    @mailer.subscribes(OrderPaid, retry=Retry(max_attempts=2, immediate=1))
    async def paid(event: OrderPaid) -> None:
        tries.append(event.order_id)
        raise OSError("mail server away")

    event = CloudEvent(attributes=dict(ATTRIBUTES), data={"order_id": "42"})
    async with running(mailer) as asking:
        await asking.send_raw(delivered(to_structured_event(event)), to_subscribers("orders.paid"))
        await asking.dead_letter()

    assert tries == ["42", "42"]


async def test_a_setting_has_events_carry_the_headers() -> None:
    settings = MessagingSettings.model_validate({"broker_url": "memory://", "cloud_events_source": "/shop"})
    transport = transport_from(settings)
    await transport.open()
    await transport.declare([QueueSpec("mailer", (Binding("orders.paid"),))])

    async with Bus(transport) as bus:
        message_id = await bus.publish(OrderPaid(order_id="42"))

    subscription = await transport.subscribe("mailer", prefetch_messages=1)
    (delivery,) = await subscription.take(1)
    headers = delivery.envelope.headers
    assert (headers["ce-id"], headers["ce-source"], headers["ce-type"]) == (message_id, "/shop", "orders.paid")
