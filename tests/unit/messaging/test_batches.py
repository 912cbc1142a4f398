"""How a batch is written and read."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from messaging.batches import BATCH, batch_of, item_of, items_in
from messaging.envelope import Envelope
from messaging.errors import DecodeError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
values = st.one_of(texts, st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), st.none())
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=10,
)
bodies = st.one_of(
    st.just(b""),
    st.builds(
        lambda value, escaped, spaced: json.dumps(
            value, ensure_ascii=escaped, separators=(", ", " : ") if spaced else (",", ":")
        ).encode(),
        json_values,
        st.booleans(),
        st.booleans(),
    ),
    st.binary(max_size=20),
)
instants = st.integers(0, 2**32).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
envelopes = st.builds(
    Envelope,
    message_id=texts,
    body=bodies,
    type=texts,
    correlation_id=texts,
    reply_to=texts,
    timestamp=st.one_of(st.none(), instants),
    app_id=texts,
    headers=st.dictionaries(texts, values, max_size=4),
)


@given(st.lists(envelopes, min_size=1, max_size=6))
def test_what_is_joined_is_read_as_it_was_written(sent: list[Envelope]) -> None:
    items = [(envelope, item) for envelope in sent if (item := item_of(envelope)) is not None]
    if not items:
        return

    batch = batch_of([item for _, item in items])

    assert items_in(batch) == [envelope for envelope, _ in items]
    json.loads(batch.body)  # for readers in any language
    assert (batch.content_type, batch.reply_to, batch.type) == (BATCH, "", "")


@given(st.one_of(st.binary(max_size=60), json_values.map(lambda value: json.dumps([value]).encode())))
def test_whatever_else_is_there_is_refused_and_never_a_crash(body: bytes) -> None:
    try:
        items = items_in(Envelope("b", body, content_type=BATCH))
    except DecodeError:
        return
    assert items, "only what holds messages can be read"


ORDER = Envelope("m", b'{"n":1}', "orders.place")


@pytest.mark.parametrize(
    "envelope",
    [
        pytest.param(replace(ORDER, body=b'{"n":'), id="no JSON"),
        pytest.param(replace(ORDER, body=b'{"n":NaN}'), id="NaN"),
        pytest.param(replace(ORDER, body=b'{"n":1},{"n":2}'), id="two values"),
        pytest.param(replace(ORDER, body=b'"\xff"'), id="no UTF-8"),
        pytest.param(replace(ORDER, body=b"[" * 100_000), id="depth"),
        pytest.param(replace(ORDER, body=b' {"n":1}'), id="space around it"),
        pytest.param(replace(ORDER, content_type="text/plain"), id="another content type"),
        pytest.param(replace(ORDER, content_type=BATCH, body=b"[]"), id="a batch"),
        pytest.param(replace(ORDER, type="x" * 256), id="a long property"),
        pytest.param(replace(ORDER, type="\ud800"), id="a lone surrogate"),
        pytest.param(replace(ORDER, headers={"n": float("nan")}), id="a header that is NaN"),
        pytest.param(replace(ORDER, headers={"n": 2**70}), id="a large header"),
        pytest.param(replace(ORDER, headers={"x": "x" * 2000}), id="long headers"),
    ],
)
def test_what_not_every_reader_could_have_back_travels_alone(envelope: Envelope) -> None:
    assert item_of(ORDER) is not None
    assert item_of(envelope) is None


ITEM = '{"properties":{"message_id":"m"},"headers":{},"body":{}}'


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "it is no JSON array"),
        ("{}", "it is no JSON array"),
        ("[]", "an item is expected at character 1"),
        ("[{}]", "an item is expected at character 1"),
        (f"[{ITEM}", "item 1 does not end at character"),
        (f"[{ITEM[:-1]}{ITEM}]", "item 1 does not end at character"),
        ('[{"body":}]', "Expecting value"),
        (f"[{ITEM}]x", "something follows it"),
        (f"[{ITEM},]", "an item is expected"),
        ('[{1:"m"}]', "an item is expected at character 1"),
        ('[{"properties":[]}]', "the properties of an item are no JSON object"),
        ('[{"properties":{"type":1}}]', "property 'type' of an item is no text"),
        ('[{"properties":{"content_type":"text/plain"}}]', "an item is no application/json"),
        ('[{"headers":{"n":[]}}]', "header 'n' of an item is neither text nor number"),
        ('[{"headers":{"n":' + "7" * 25 + "}}]", "header 'n' of an item is out of range"),
        ('[{"properties":{"type":"' + "x" * 300 + '"}}]', "has more than 255 bytes"),
        ('[{"headers":{"n":"' + "x" * 3000 + '"}}]', "more than 2000 bytes of properties and headers"),
        ('[{"body":' + "[" * 100_000 + "}]", "recursion"),
        ("[" + ",".join([ITEM] * 51) + "]", "it holds 51 items"),
    ],
)
def test_a_batch_that_is_none_is_refused_as_a_whole_with_why(body: str, why: str) -> None:
    with pytest.raises(DecodeError, match=f"the batch cannot be read: .*{why}"):
        items_in(Envelope("b", body.encode(), content_type=BATCH))


def test_spaces_are_allowed_unknown_fields_ignored_and_numbers_of_a_body_kept_as_written() -> None:
    digits = "1" * 5000  # more than Python makes a number of
    body = f'[ {{ "later" : [1] , "body" : {{"price": 1.10, "n": {digits}}} , "headers" : {{ "a" : 1 }} }} \n]'

    (item,) = items_in(Envelope("b", body.encode(), content_type=BATCH, app_id="shop"))

    assert item.body.decode() == f'{{"price": 1.10, "n": {digits}}}'
    assert (item.headers, item.app_id, item.content_type) == ({"a": 1}, "shop", "application/json")
