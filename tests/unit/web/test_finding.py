"""Sagas found over HTTP by what their states say; nobody may guess what is secret."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html import unescape
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field

from messaging.messages import Command, Reply
from orchestrator import Orchestrator, Saga, Searchable, Step
from orchestrator.registry import pin_of
from tests.unit.web.conftest import Site, opened
from tests.unit.web.test_text import SQL


class Address(BaseModel):
    city: str
    door_code: str = Field(default="1234", repr=False)


class Order(BaseModel):
    customer: Annotated[str, Searchable]
    address: Address
    pin: str = Field(default="4711", repr=False)


class Done(Reply): ...


class Pack(Command[Done]): ...


class Packing(Step[Order, Done]):
    participant = "warehouse"
    nothing_to_undo = True

    def command(self, state: Order) -> Pack:
        return Pack()


class ShipOrder(Saga[Order]):
    steps = (Packing(),)


ULM, BONN = (
    Order(customer=customer, address=Address(city=city)) for customer, city in (("ann", "Ulm"), ("bob", "Bonn"))
)


@pytest.fixture
async def shop(url: str) -> AsyncIterator[Site]:
    """A site that has the definition, with an order to Ulm and one to Bonn."""
    async with opened(url, app=Orchestrator(sagas=[ShipOrder])) as shop:
        for state in (ULM, BONN):
            await shop.client.start(ShipOrder, state, key=state.address.city)
        yield shop


async def found(shop: Site, *where: str, **more: str) -> Any:
    return (await shop.http.get("/api/sagas", params={"where": list(where), **more})).json()


def keys(page: Any) -> list[str]:
    return [row["business_key"] for row in page["items"]]


async def test_a_list_is_narrowed_down_by_states_and_tells_what_was_read_for_it(shop: Site) -> None:
    indexed, scanned = await found(shop, "customer=ann"), await found(shop, "address.city=Bonn", "customer=bob")

    assert (keys(indexed), indexed["scanned"]) == (["Ulm"], {})
    assert (keys(scanned), list(scanned["scanned"])) == (["Bonn"], ["address.city"])
    assert "address.city is not searchable: this reads every saga" in scanned["scanned"]["address.city"]
    assert keys(await found(shop, "customer=ann", "address.city=Bonn")) == []


@pytest.mark.parametrize("word", SQL)
@pytest.mark.parametrize("path", ["customer", "address.city"])
async def test_sql_in_what_states_are_to_say_finds_and_chooses_nothing(shop: Site, path: str, word: str) -> None:
    assert (await found(shop, f"{path}={word}"))["items"] == []
    assert (await shop.http.get("/sagas", params={"where": f"{path}={word}"})).status_code == 200
    asked = {"action": "abandon", "reason": "x", "where": {"state": {path: word}}}
    assert (await shop.http.post("/api/bulk", json=asked, headers=await shop.csrf())).status_code == 409
    answer = await shop.http.get("/api/sagas", params={"where": f"{path}{word}=x"})
    assert answer.status_code == 422 or answer.json()["items"] == []


@pytest.mark.parametrize("where", ["customer", "=x", "a b=x", "customer[0]=x"])
async def test_a_condition_that_is_none_is_refused_without_saying_it_again(shop: Site, where: str) -> None:
    answer = await shop.http.get("/api/sagas", params={"where": where})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("where: write FIELD=VALUE")
    assert f"{where} " not in answer.text.replace("FIELD=VALUE, such as customer=c-17", "")


@pytest.mark.parametrize("where", ["pin=4711", "pin=0000", "address.door_code=1234"])
async def test_a_secret_cannot_be_guessed_in_a_list_a_page_or_a_bulk_action(shop: Site, where: str) -> None:
    path, _, value = where.partition("=")
    asked = {"action": "cancel", "reason": "x", "where": {"state": {path: value}}}
    answers = [
        await shop.http.get("/api/sagas", params={"where": where}),
        await shop.http.get("/api/sagas", params={"where": where, "saga": "ship-order"}),
        await shop.http.get("/sagas", params={"where": where}),
        await shop.http.get("/api/events", params={"where": where}),
        await shop.http.post("/api/bulk", json=asked, headers=await shop.csrf()),
    ]
    assert [answer.status_code for answer in answers] == [422] * 5
    assert value not in "".join(answer.text for answer in answers if "json" in answer.headers["content-type"])


async def test_states_of_sagas_that_are_not_known_here_are_not_read(url: str) -> None:
    async with opened(url) as bare:
        await bare.client.start(ShipOrder, ULM, key="Ulm")
        assert keys(await found(bare, "customer=ann")) == ["Ulm"]
        refused = await bare.http.get("/api/sagas", params={"where": "address.city=Ulm"})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:sagasmith:problem:not-searchable")
        state = '{"address": {"city": "Ulm"}}'
        await bare.saga(state=state, business_key="another's")
        await bare.saga(state=state, business_key="of another version", pin=replace(pin_of(ShipOrder), version=2))
    async with opened(url, app=Orchestrator(sagas=[ShipOrder])) as shop:
        assert keys(await found(shop, "address.city=Ulm")) == ["Ulm"]


async def test_a_list_that_reads_every_saga_is_not_followed(shop: Site) -> None:
    refused = await shop.http.get("/api/events", params={"where": "address.city=Ulm"})
    assert refused.status_code == 422 and "cannot be followed" in refused.json()["detail"]


async def test_the_page_finds_by_states_keeps_what_was_asked_and_acts_on_what_matches(shop: Site) -> None:
    page = (await shop.http.get("/sagas", params={"where": ["address.city=Ulm", "customer=ann"], "q": ""})).text

    assert re.findall(r'class="key">(\w*)<', page) == ["Ulm"]
    assert re.findall(r'name="where" value="([^"]*)"', page) == ["address.city=Ulm", "customer=ann"]
    assert "address.city is not searchable: this reads every saga" in page and "hx-sse:connect" not in page
    [state] = re.findall(r'name="state" value="([^"]*)"', page)
    assert json.loads(unescape(state)) == {"address.city": "Ulm", "customer": "ann"}

    [token] = set(re.findall(r'name="csrf" value="([^"]*)"', page))
    form = {"csrf": token, "key": "k", "action": "cancel", "reason": "strike", "state": unescape(state)}
    begun = await shop.http.post("/bulk", data=form, headers={"origin": "http://localhost"})
    assert begun.status_code == 303, begun.text
    [bulk] = (await shop.http.get("/api/bulk")).json()
    assert bulk["total"] == 1
    assert (await shop.http.post("/bulk", data=form | {"key": "l", "state": "{"})).status_code == 422


async def test_a_live_page_goes_on_with_what_was_asked(shop: Site) -> None:
    page = (await shop.http.get("/sagas", params={"where": "customer=ann"})).text
    [live] = re.findall(r'hx-sse:connect="([^"]*)"', page)
    assert "where=customer%3Dann" in live
