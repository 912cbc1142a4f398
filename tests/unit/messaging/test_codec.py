"""What may be in a body, and what may not."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from messaging.codec import Limits, MessageRegistry, check_json, decode_body, encode_body, parse_json
from messaging.errors import DecodeError, MessageDefinitionError, UnencodableMessage, UnknownMessageType
from messaging.messages import Command, Event, Reply


class Measure(BaseModel):
    value: float = 0.0
    note: str | None = None


class Measured(Event):
    anything: Any = None
    measure: Measure = Measure()
    text: str = ""
    named: int = Field(default=0, alias="otherName")


class Weighed(Event):
    grams: int


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


def test_a_message_comes_back_as_it_was_sent() -> None:
    sent = Measured(anything={"a": [1, None]}, text="grüße 😀", otherName=3)

    assert decode_body(Measured, encode_body(sent)) == sent


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30))
def test_any_text_without_nul_comes_back(text: str) -> None:
    assert decode_body(Measured, encode_body(Measured(text=text))).text == text


@given(st.recursive(st.none() | st.integers(), lambda parts: st.lists(parts, max_size=3), max_leaves=20))
def test_depth_is_counted_as_a_reader_counts_it(value: Any) -> None:
    def depth(part: Any) -> int:
        return 1 + max(map(depth, part), default=0) if isinstance(part, list) else 0

    body = json.dumps(value).encode()
    levels = max(depth(value), 1)
    check_json(body, Limits(max_depth=levels))
    if levels > 1:
        with pytest.raises(DecodeError, match="nested deeper"):
            check_json(body, Limits(max_depth=levels - 1))


@pytest.mark.parametrize(
    "message",
    [
        Measured(anything=float("nan")),
        Measured(anything={"x": [float("-inf")]}),
        Measured(measure=Measure(value=float("inf"))),
        Measured(text="\ud800"),
        Measured(text="a\0b"),
        Measured(text="back\\\0slash"),
        Measured(anything={"\0": 1}),
        Measured.model_construct(text=7),
        Measured(anything=object()),
        Measured(anything=json.loads("[" * 64 + "]" * 64)),
        Measured(anything=json.loads("[" * 900 + "]" * 900)),
        Measured(text="x" * 1024 * 1024),
    ],
    ids=range(12),
)
def test_what_no_reader_could_take_is_refused_before_it_is_sent(message: Measured) -> None:
    with pytest.raises(UnencodableMessage, match="'measured' cannot be sent"):
        encode_body(message)


def test_text_that_only_looks_like_an_escaped_nul_passes() -> None:
    message = Measured(text="\\u0000 and \\\\u0000")

    assert decode_body(Measured, encode_body(message)) == message


def test_a_null_alone_is_no_reason_to_refuse() -> None:
    encode_body(Measured(measure=Measure(note=None, value=1.5)))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"\xff", "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"unknown": "\\u0000"}', "NUL"),
        (b'"\\\\\\u0000"', "NUL"),
        (b'{"a":"\x00"}', "not JSON"),
        (nested(65), "nested deeper"),
        (b"[" * 1_000_000, "nested deeper"),
        (b'{"a":' * 150_000, "nested deeper"),
        (b"[[" + b"]" * 100, "not JSON"),
        (b" " * (1024 * 1024 + 1), "more than the limit"),
        (b"1" * 5000, "not JSON"),
    ],
    ids=range(16),
)
def test_a_body_that_cannot_be_held_is_refused_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        check_json(body)
    with pytest.raises(DecodeError):
        decode_body(Measured, body)


@pytest.mark.parametrize("body", [b'"\\\\u0000"', nested(64), b'"NaN"', b'["' + b"[" * 99 + b'"]', b'"\\ud83d\\ude00"'])
def test_a_body_that_only_looks_wrong_is_taken(body: bytes) -> None:
    assert parse_json(body) == json.loads(body)


@given(st.binary(max_size=200))
def test_no_bytes_at_all_crash_the_reader(body: bytes) -> None:
    with contextlib.suppress(DecodeError):
        check_json(body)
    with contextlib.suppress(DecodeError):
        decode_body(Measured, body)


@pytest.mark.timeout(10)
@pytest.mark.parametrize("part", [b'"\\', b'\\"', b"\\", b'"[', b"[]", b'{"a":[', b"\\u0000"])
def test_a_hostile_body_of_a_megabyte_is_read_in_bounded_time(part: bytes) -> None:
    with contextlib.suppress(DecodeError):
        check_json(b"[" * 70 + part * (900_000 // len(part)))


def test_a_decode_error_names_the_field_and_keeps_the_value_to_itself() -> None:
    with pytest.raises(DecodeError) as caught:
        decode_body(Weighed, b'{"grams": "secret"}', message_id="m-1")

    assert "grams" in str(caught.value)
    assert "m-1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_two_classes_with_one_wire_name_are_refused() -> None:
    class Charged(Reply, name="measured"):
        pass

    registry = MessageRegistry([Measured])
    registry.register(Measured)
    with pytest.raises(MessageDefinitionError, match="already that of Measured"):
        registry.register(Charged)
    assert registry.get("measured") is Measured


def test_a_wire_name_in_the_body_of_a_class_is_refused_with_the_remedy() -> None:
    with pytest.raises(MessageDefinitionError, match=r"class Charged\(..., name=...\)"):

        class Charged(Reply):  # pyright: ignore[reportUnusedClass]
            wire_name = "measured"


def test_an_unknown_wire_name_is_told_with_its_message_and_queue() -> None:
    class Charge(Command[Reply]):
        pass

    registry = MessageRegistry([Charge])
    assert registry.find("nothing") is None
    with pytest.raises(UnknownMessageType, match=r"'nothing'.*message m-1, queue 'q'"):
        registry.get("nothing", message_id="m-1", queue="q")


def test_limits_that_cannot_be_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="max_depth"):
        Limits(max_depth=10_000)
