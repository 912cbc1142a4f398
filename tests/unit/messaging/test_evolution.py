"""Messages that change while services of several ages talk to each other."""

from __future__ import annotations

import json
from typing import Any

import pytest

from messaging import Command, Event, Failure, MessageDefinitionError, Reply, Service
from messaging import envelope as wire
from messaging.envelope import Envelope, HeaderValue
from messaging.errors import DecodeError
from messaging.evolution import decode_message
from tests.unit.messaging.support import running


class Priced(Event, version=3):
    """1: `price` in euros. 2: `cents`. 3: `cents` and `currency`."""

    cents: int
    currency: str
    note: str = ""

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        if version == 1:
            return {**body, "cents": round(body["price"] * 100)}
        return {**body, "currency": "EUR"}


def sent(body: object, version: HeaderValue = None) -> Envelope:
    headers = {} if version is None else {wire.SCHEMA_VERSION: version}
    return Envelope("m-1", json.dumps(body).encode(), "priced", headers=headers)


@pytest.mark.parametrize(
    "envelope",
    [
        sent({"price": 9.5}),
        sent({"price": 9.5}, 1),
        sent({"cents": 950, "price": 0}, 2),
        sent({"cents": 950, "currency": "EUR"}, 3),
        sent({"cents": 950, "currency": "EUR", "of_tomorrow": [1]}, 4),
    ],
)
def test_a_message_of_any_age_is_read_as_the_class_is_today(envelope: Envelope) -> None:
    assert decode_message(Priced, envelope) == Priced(cents=950, currency="EUR")


@pytest.mark.parametrize(
    ("envelope", "problem"),
    [
        (sent({}, 1), r"Priced.upcast raised KeyError for version 1: 'price'"),
        (sent({"currency": "EUR"}, 2), "cents: Field required"),
        (sent([], 1), "it is no object"),
        (sent({"price": 9}, "new"), "its schema-version 'new' is no version"),
        (sent({"price": 9}, 0), "its schema-version 0 is no version"),
    ],
)
def test_what_cannot_be_lifted_is_refused_with_why(envelope: Envelope, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        decode_message(Priced, envelope)


def test_a_version_goes_with_the_class_and_is_a_number_from_one() -> None:
    class Weighed(Event): ...

    assert (Priced.schema_version, Weighed.schema_version) == (3, 1)
    for wrong in (0, -1, True):
        with pytest.raises(MessageDefinitionError, match="Versions are numbers from 1"):
            type("Wrong", (Event,), {"__module__": __name__}, version=wrong)


@pytest.mark.parametrize("base", [Reply, Failure])
def test_answers_have_no_version(base: type[Any]) -> None:
    with pytest.raises(MessageDefinitionError, match="is an answer, which has no version"):
        type("Answer", (base,), {"__module__": __name__}, version=2)


class Opened(Reply): ...


class Open(Command[Opened], version=2):
    doors: int

    @classmethod
    def upcast(cls, body: dict[str, Any], version: int) -> dict[str, Any]:
        return {"doors": len(body["names"])}


async def test_a_service_carries_out_commands_of_older_senders() -> None:
    house, seen = Service("house"), list[Open]()

    @house.handles(Open)
    async def open_doors(command: Open) -> Opened:
        seen.append(command)
        return Opened()

    async with running(house) as asking:
        await asking.ask(Open(doors=2))
        older = Envelope("m", b'{"names": ["front"]}', "open", reply_to="replies", correlation_id="m")
        await asking.send_raw(older)
        assert (await asking.reply()).text_header(wire.OUTCOME) == wire.SUCCESS

    assert seen == [Open(doors=2), Open(doors=1)]
