"""The parts of the transport that need no broker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.dead_letter_notes import Notes
from messaging.rabbitmq import wire
from messaging.rabbitmq.broker import Broker
from messaging.rabbitmq.lines import FastLine, Parcel
from messaging.rabbitmq.losses import unharmed
from messaging.rabbitmq.properties import buried, decoded, put_off
from messaging.rabbitmq.subscription import Caution
from messaging.rabbitmq.tap import FrameTap
from messaging.rabbitmq.topology import DELAY_STEPS, delay_step
from messaging.rabbitmq.watermark import Watermark

NOTES = Notes("why", "detail", 1, "orders", "events", "orders.paid")


@given(st.lists(st.lists(st.integers(1, 40), max_size=8), max_size=30), st.integers(0, 40))
def test_every_delivery_settled_is_acknowledged_at_once_and_nothing_else_is(
    settlements: list[list[int]], arrived: int
) -> None:
    watermark: Watermark[None] = Watermark()
    for tag in range(1, arrived + 1):
        watermark.arrived(tag, None)
    at_the_broker, settled = set(range(1, arrived + 1)), set[int]()
    for tags in settlements:
        settled |= {tag for tag in tags if tag <= arrived}
        for tag, multiple in watermark.settle(tags):
            assert tag in at_the_broker, "the broker closes the channel over a tag it does not know"
            at_the_broker -= {other for other in at_the_broker if other <= tag} if multiple else {tag}
        assert at_the_broker == set(range(1, arrived + 1)) - settled
        assert watermark.tags() == sorted(at_the_broker)


def test_a_run_is_acknowledged_with_one_frame_and_holes_one_by_one() -> None:
    watermark: Watermark[None] = Watermark()
    for tag in range(1, 11):
        watermark.arrived(tag, None)
    assert watermark.settle([3, 1, 2]) == [(3, True)]
    assert watermark.settle([5, 7]) == [(5, False), (7, False)]
    assert watermark.settle([4]) == [(4, False)]
    assert watermark.settle([6, 8]) == [(8, True)]
    assert watermark.settle([8]) == []


def test_caution_takes_messages_singly_until_those_under_way_with_the_culprit_are_through() -> None:
    caution = Caution(100)
    caution.lost(settled=0)
    assert caution.messages == 100
    caution.lost(settled=0)
    assert caution.messages == 1
    assert not caution.settled(60)
    caution.lost(settled=60)
    assert caution.messages == 1
    assert caution.settled(40)
    assert caution.messages == 100


def test_a_life_in_which_something_was_settled_is_no_reason_for_caution() -> None:
    caution = Caution(100)
    for settled in (0, 5, 0, 1, 0):
        caution.lost(settled=settled)
        assert caution.messages == 100


table_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=20), children, max_size=3),
    max_leaves=10,
)


@given(
    st.dictionaries(
        st.text(max_size=50),
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        max_size=5,
    )
)
def test_plain_header_values_are_read_as_they_were_written(headers: dict[str, object]) -> None:
    properties = wire.Properties(headers={name.encode(): wire.header_entry(v) for name, v in headers.items()})
    envelope, _, problem = decoded(wire.read_properties(properties.encoded()), b"")
    assert problem == ""
    assert envelope.headers == headers


@given(table_values)
def test_nested_header_values_become_text(value: object) -> None:
    properties = wire.Properties(headers={b"h": wire.header_entry(value)})
    envelope, _, problem = decoded(wire.read_properties(properties.encoded()), b"")
    assert problem == ""
    assert isinstance(envelope.headers["h"], str | int | float | bool | None)


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_and_can_be_moved(raw: bytes) -> None:
    properties = wire.read_properties(raw)
    decoded(properties, b"")
    for moved in (put_off(properties, 2, raw), buried(properties, NOTES)):
        again = wire.read_properties(moved)
        assert again.problem == ""
        _, attempt, _ = decoded(again, b"")
        assert attempt >= 1


@given(st.binary(min_size=1, max_size=100))
def test_header_values_of_any_bytes_do_not_raise(entry: bytes) -> None:
    wire.header_value(entry)


def test_a_message_that_moves_cannot_expire_copy_itself_or_be_refused() -> None:
    properties = wire.Properties(
        {wire.EXPIRATION: b"1000", wire.USER_ID: b"ann", wire.TYPE: b"t", wire.DELIVERY_MODE: b"\x01"},
        {b"CC": wire.header_entry(["other"]), b"x-death": wire.header_entry([{}]), b"k": wire.header_entry(1)},
    )
    moved = wire.read_properties(buried(properties, NOTES))
    assert moved.fields == {wire.TYPE: b"t", wire.DELIVERY_MODE: b"\x02"}
    names = {name.decode() for name in moved.headers if not name.startswith(b"dead-letter-")}
    assert names == {"original-expiration", "original-user-id", "original-cc", "k"}


def test_a_dead_letter_with_too_many_headers_loses_them_and_keeps_the_reason() -> None:
    headers = {b"h%d" % number: wire.header_entry("x" * 100) for number in range(100)}
    moved = wire.read_properties(buried(wire.Properties({wire.TYPE: b"t"}, headers), NOTES, max_bytes=4096))
    envelope, _, _ = decoded(moved, b"")
    assert envelope.type == "t"
    assert envelope.headers["dead-letter-reason"] == "why"
    assert envelope.headers["dead-letter-lost-headers"] == 100


def test_delays_are_rounded_up_to_few_steps() -> None:
    assert delay_step(timedelta(0)) == DELAY_STEPS[0]
    assert delay_step(timedelta(seconds=3)) == timedelta(seconds=5)
    assert delay_step(timedelta(seconds=5)) == timedelta(seconds=5)
    assert delay_step(timedelta(hours=25)) == timedelta(days=2)
    with pytest.raises(ValueError, match="at most 40 days"):
        delay_step(timedelta(days=41))


@pytest.mark.parametrize("url", ["amqp://ann:s3cret%2F@host/", "amqp://ann:s3cret@host:5672/v?name=x"])
def test_a_password_is_never_shown(url: str) -> None:
    broker = Broker(url)
    assert "s3cret" not in f"{broker} {broker!r} {broker.masked(f'cannot reach {url}')}"


@pytest.mark.parametrize("raised", [Exception(), asyncio.CancelledError()], ids=["nothing said", "cancelled"])
async def test_what_the_client_library_raises_for_a_lost_connection_is_one(raised: BaseException) -> None:
    async def of_the_library() -> None:
        raise raised

    with pytest.raises(ConnectionError, match="connection lost"):
        await unharmed(of_the_library())


class Tap:
    """Keeps what is written, write by write."""

    def __init__(self) -> None:
        self.written: list[bytes] = []

    def listen(self, channel: int, listener: object) -> None: ...

    def write(self, frames: Iterable[bytes]) -> None:
        self.written.append(b"".join(frames))


def a_line(tap: Tap) -> FastLine:
    channel: Any = SimpleNamespace(number=1)
    return FastLine(cast(FrameTap, tap), channel, frame_max=4096)


def a_parcel(number: int) -> Parcel:
    return Parcel(b"m-%d" % number, "", "orders", True, b"\0\0", b"body %d" % number)


async def test_what_is_sent_in_one_turn_of_the_loop_leaves_in_one_write_and_in_order() -> None:
    tap = Tap()
    line = a_line(tap)
    for number in range(3):
        line.send([a_parcel(number)])
    await asyncio.sleep(0)
    line.send([a_parcel(3)])
    await asyncio.sleep(0)

    assert [re.findall(rb"body (\d)", write) for write in tap.written] == [[b"0", b"1", b"2"], [b"3"]]


async def test_nothing_is_written_on_a_channel_that_is_closed_in_the_turn_in_which_something_was_sent() -> None:
    tap = Tap()
    line = a_line(tap)
    batch = line.send([a_parcel(1)])
    line.gone("channel closed by the broker")
    await asyncio.sleep(0)

    assert tap.written == []
    assert batch.outcomes == ["channel closed by the broker; it may have arrived"]
