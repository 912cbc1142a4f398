"""The pages about definitions: who has and needs them, and what they look like, secrets aside."""

from __future__ import annotations

import threading
from typing import Annotated, Any

from pydantic import BaseModel, Field, SecretStr

from orchestrator import Searchable
from orchestrator.web.schemas import fields_of, marked_schema
from tests.conformance.stores import command
from tests.unit.web.conftest import Site
from tests.unit.web.test_pages import page


async def test_a_definition_is_listed_with_who_needs_and_who_has_it(walled: Site) -> None:
    await walled.saga(command())

    (needed, known) = (await walled.http.get("/api/definitions")).json()
    text = await page(walled, "/definitions")

    assert (needed["saga"], needed["known"], needed["in_flight"], needed["workers"]) == ("create-order", False, 1, [])
    assert (known["saga"], known["known"], known["in_flight"], len(known["workers"])) == ("paint-wall", True, 0, 1)
    assert "none, and sagas need it" in text and known["workers"][0] in text
    assert 'href="/definitions/paint-wall?version=1"' in text and "/definitions/create-order" not in text


async def test_a_definition_is_shown_with_its_steps_and_the_schema_of_its_state(walled: Site) -> None:
    text = await page(walled, "/definitions/paint-wall", version="1")

    assert "paint → painter" in text and "waits for paint-dried" in text and "strip" in text
    assert 'src="/graphs/paint-wall.svg?version=1"' in text
    assert '<code>name</code></td><td data-label="Type" class="wide">string</td>' in text
    assert "searchable</span>" in text and "x-searchable" in text
    assert (await walled.http.get("/definitions/paint-wall", params={"version": 2})).status_code == 404


class Pin(BaseModel):
    digits: SecretStr = SecretStr("like-no-other-1")
    country: str = "NL"


class Purse(BaseModel):
    owner: Annotated[str, Searchable]
    token: str = Field(default="like-no-other-2", repr=False, examples=["like-no-other-3"])
    pin: Pin = Pin(digits=SecretStr("like-no-other-4"))
    pins: list[Pin] = [Pin(digits=SecretStr("like-no-other-5"))]
    by_name: dict[str, Pin] = Field(default={}, examples=[{"a": {"digits": "like-no-other-6"}}])
    coins: int = 3
    inside: Purse | None = None


def test_a_schema_tells_which_fields_are_secret_and_nothing_else_of_them() -> None:
    schema: Any = marked_schema(Purse)

    assert "like-no-other" not in str(schema)
    assert schema["$defs"]["Purse"]["properties"]["token"] == {"title": "Token", "type": "string", "x-secret": True}
    assert schema["$defs"]["Pin"]["properties"]["digits"]["x-secret"] is True
    assert schema["$defs"]["Purse"]["properties"]["coins"]["default"] == 3
    told = {field.name: (field.type, field.searchable, field.secret) for field in fields_of(schema)}
    assert told["owner"] == ("string", True, False) and told["token"] == ("string", False, True)
    assert told["pins"] == ("array of Pin", False, False)


def test_a_state_without_a_schema_is_no_fault() -> None:
    class Odd(BaseModel, arbitrary_types_allowed=True):
        what: threading.Event

    assert (marked_schema(Odd), fields_of({})) == ({}, [])
