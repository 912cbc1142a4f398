"""Marks on the fields of a state: which are refused, with the class and the remedy, and the text that values have."""

from __future__ import annotations

import types
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr, create_model

from orchestrator import Saga, SagaDefinitionError, Searchable, SearchRefused
from orchestrator.redacted import hides
from orchestrator.searchable import (
    asked_in_words,
    changed_values,
    filled_values,
    kept_text,
    kept_values,
    searchable_fields,
    searched_text,
)
from orchestrator.signals import Decision
from tests.conformance.stores import new_saga
from tests.unit.orchestrator.orders import CreatingOrder, OrderState

CustomerId = NewType("CustomerId", str)


class Colour(StrEnum):
    RED = "red"


class Shape(Enum):
    ROUND = ("round", 1)


def saga_of(state: type[OrderState]) -> Any:
    return types.new_class("OneStep", (Saga[state],), exec_body=lambda body: body.update(steps=(CreatingOrder(),)))  # type: ignore[valid-type] # made here


def state_with(annotation: Any, default: Any = ...) -> type[BaseModel]:
    made: type[BaseModel] = create_model("State", customer=(annotation, default))
    return made


@pytest.mark.parametrize(
    "annotation",
    [
        *(str, int, bool, date, datetime, Decimal, UUID, Colour, CustomerId, str | None),
        *(Literal["a", "b"], Annotated[str, Field(max_length=5)], Annotated[int, Field(ge=0)] | None),
    ],
)
def test_what_has_one_text_can_be_marked(annotation: Any) -> None:
    assert searchable_fields(state_with(Annotated[annotation, Searchable])) == ("customer",)
    assert searchable_fields(state_with(annotation)) == ()


@pytest.mark.parametrize(
    ("annotation", "default", "told"),
    [
        (Annotated[float, Searchable], ..., "marks field customer as Searchable, and float has no one text. Mark str,"),
        (Annotated[list[str], Searchable], ..., "has no one text"),
        (Annotated[str | list[str], Searchable], ..., "has no one text"),
        (Annotated[Shape, Searchable], ..., "and Shape has no one text"),
        (Annotated[Any, Searchable], ..., "has no one text"),
        (Annotated[OrderState, Searchable], ..., "and OrderState has no one text"),
        (Annotated[SecretStr, Searchable], ..., "it is a secret, which must not be copied"),
        (Annotated[str, Field(repr=False), Searchable], ..., "it is a secret"),
        (Annotated[str, Searchable], Field(repr=False), "it is a secret"),
        (Annotated[str, Searchable], Field(default="", exclude=True), "it is not stored"),
        (Annotated[str, Searchable], Field(alias="the customer"), "its name in JSON is 'the customer'"),
        (
            Annotated[str, Searchable] | None,
            None,
            "marks a part of field customer. Mark it whole: customer: Annotated[",
        ),
        (list[Annotated[str, Searchable]], ..., "marks a part of field customer"),
    ],
)
def test_a_mark_that_cannot_work_is_refused_with_the_remedy(annotation: Any, default: Any, told: str) -> None:
    with pytest.raises(ValueError, match=r"^marks ") as refused:
        searchable_fields(state_with(annotation, default))
    assert told in str(refused.value)


def test_a_saga_whose_state_has_such_a_mark_is_refused_when_its_class_is_created() -> None:
    class State(OrderState):
        weight: Annotated[float, Searchable] = 1.0

    with pytest.raises(SagaDefinitionError, match=r"^state State marks field weight as Searchable, and float"):
        saga_of(State)


def test_a_mark_is_no_other_version() -> None:
    class Marked(OrderState):
        note: Annotated[str, Searchable] = ""

    plain, marked = saga_of(OrderState), saga_of(Marked)
    assert (plain.plan.searchable, marked.plan.searchable) == ((), ("note",))
    assert plain.plan.fingerprint == marked.plan.fingerprint


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("c-17", "c-17"),
        ("", ""),
        ("größer", "größer"),
        (17, "17"),
        (10**30, str(10**30)),
        (True, "true"),
        (None, "null"),
        (Decimal("1.50"), "1.50"),
        (date(2031, 2, 3), "2031-02-03"),
        (datetime(2031, 2, 3, 4, 5, tzinfo=UTC), "2031-02-03T04:05:00Z"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
    ],
)
def test_a_value_is_asked_for_by_the_text_that_is_kept_of_it(value: Any, text: str) -> None:
    state = state_with(Annotated[type(value), Searchable])(customer=value)
    assert kept_values(["customer"], state.model_dump_json()) == {"customer": text}
    assert searched_text(value) == text


def test_only_what_differs_is_kept_anew_and_what_is_gone_is_kept_no_more() -> None:
    fields = ("a", "b", "c")
    assert changed_values(fields, '{"a": 1, "b": 2, "c": 3}', '{"a": 1, "b": 4, "d": 5}') == (("b", "4"), ("c", None))
    assert changed_values(fields, '{"a": 1, "d": 4}', '{"a": 1, "d": 5}') == ()
    assert changed_values((), '{"a": 1}', '{"a": 2}') == ()


def test_what_several_signals_of_one_batch_change_is_all_kept() -> None:
    first, second = Decision(new_saga(), search=(("a", "1"), ("b", "2"))), Decision(new_saga(), search=(("b", "3"),))
    assert dict(first.then(second).search) == {"a": "1", "b": "3"}


def test_an_older_state_has_what_its_class_says_by_default_unless_that_is_drawn_anew_each_time() -> None:
    class State(BaseModel):
        customer: str
        lines: int = 1
        drawn: str = Field(default_factory=lambda: "another")
        shop: str = Field(default="north", alias="shopName")

    fields = ("customer", "lines", "drawn", "shopName")
    assert filled_values(State, fields, '{"lines": 2}') == {"lines": "2", "shopName": "north"}


def test_two_long_values_are_kept_apart() -> None:
    kept = {kept_text("x" * 255), kept_text("x" * 256), kept_text("x" * 255 + "y")}
    assert {len(one) for one in kept} == {255}
    assert len(kept) == 3


def test_conditions_are_read_up_to_the_first_sign() -> None:
    assert asked_in_words(["customer=c=17", "address.city="]) == {"customer": "c=17", "address.city": ""}


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        (["customer"], "'customer' is no condition. Write FIELD=VALUE"),
        (["customer=a", "customer=a"], "customer is asked for twice"),
        (["=a"], "'' is no field of a state"),
        (["a-.0=b"], "is no field of a state"),
    ],
)
def test_a_condition_that_is_none_is_refused(conditions: list[str], told: str) -> None:
    with pytest.raises(SearchRefused) as refused:
        asked_in_words(conditions)
    assert told in str(refused.value)


class Card(BaseModel):
    number: str = Field(repr=False)
    bank: str


class Payer(BaseModel):
    card: Card
    cards: dict[str, Card] = {}
    pin: SecretStr | None = None
    keys: dict[str, SecretStr] = {}


@pytest.mark.parametrize(
    ("path", "secret"),
    [
        ("card", False),
        ("card.number", True),
        ("card.bank", False),
        ("cards.first.number", True),
        ("cards.first.bank", False),
        ("pin", True),
        ("pin.x", True),
        ("keys", True),
        ("keys.a", True),
        ("unknown", False),
    ],
)
def test_what_is_secret_is_known_at_every_path(path: str, secret: bool) -> None:
    assert hides(Payer, path.split(".")) is secret
