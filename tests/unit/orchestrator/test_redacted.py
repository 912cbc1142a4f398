"""Secrets are found wherever a type may hold them."""

from __future__ import annotations

import json
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, RootModel, Secret, SecretStr

from orchestrator.redacted import Redaction


class Card(BaseModel):
    pin: SecretStr
    brand: str = "any"


class Cards(RootModel[list[Card]]):
    pass


class Order(BaseModel):
    plain: str = ""
    token: str = Field(default="", repr=False)
    named: str = Field(default="", repr=False, serialization_alias="other-name")
    card: Card | None = None
    cards: list[Card] | None = None
    by_name: dict[str, list[Card]] = {}
    keys: list[SecretStr] | None = None
    number: Secret[int] | None = None
    rooted: Cards | None = None
    noted: Annotated[Card, "a note"] | None = None


CARD = {"pin": "4929", "brand": "visa"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("token", "4929"),
        ("other-name", "4929"),
        ("card", CARD),
        ("cards", [CARD]),
        ("by_name", {"pin": [CARD]}),
        ("keys", ["4929"]),
        ("number", 4929),
        ("rooted", [CARD]),
        ("noted", CARD),
    ],
)
def test_a_secret_is_replaced_and_what_stands_beside_it_is_not(field: str, value: Any) -> None:
    shown = Redaction().text(Order, json.dumps({"plain": "seen", field: value}))

    assert "4929" not in shown and "seen" in shown
    assert ("visa" in shown) is ("visa" in json.dumps(value))


def test_the_same_secret_has_the_same_stand_in_also_where_it_is_none() -> None:
    redaction = Redaction()

    first = json.loads(redaction.text(Order, '{"token": "4929", "plain": ""}'))
    second = json.loads(redaction.text(Order, '{"plain": "4929"}'))

    assert first["token"] == second["plain"] == "redacted-1"
