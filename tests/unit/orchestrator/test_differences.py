"""What differs between two states: complete, in order, and by a path that people read."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.differences import Difference, differences

_LEAVES = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, "", "a"])
JSON: st.SearchStrategy[Any] = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abc"), inner), max_leaves=12
)


def done_to(value: Any, differences: list[Difference]) -> Any:
    """The value once these were done to it, one after the other."""
    box = {"$": copy.deepcopy(value)}
    for one in differences:
        *way, last = ("$", *one.keys)
        place: Any = box
        for key in way:
            place = place[key]
        if one.kind == "removed":
            assert json.dumps(place.pop(last)) == json.dumps(one.old)
        elif one.kind == "changed":
            assert json.dumps(place[last]) == json.dumps(one.old)
            place[last] = one.new
        elif isinstance(place, list):
            place.insert(last, one.new)
        else:
            assert last not in place
            place[last] = one.new
    return box["$"]


@given(JSON, JSON)
def test_what_differs_turns_the_one_into_the_other(old: Any, new: Any) -> None:
    made = done_to(old, differences(old, new))

    assert json.dumps(made, sort_keys=True) == json.dumps(new, sort_keys=True)


@given(JSON)
def test_nothing_differs_from_itself(value: Any) -> None:
    assert differences(value, copy.deepcopy(value)) == []


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ({"lines": [{"quantity": 2}]}, {"lines": [{"quantity": 3}]}, [("changed", "lines[0].quantity", 2, 3)]),
        ({"a": {"b": 1}}, {"a": {"c": 1}}, [("removed", "a.b", 1, None), ("added", "a.c", None, 1)]),
        ({"a": [1, 2, 3]}, {"a": [1]}, [("removed", "a[2]", 3, None), ("removed", "a[1]", 2, None)]),
        ({"a": []}, {"a": [{"b": 1}]}, [("added", "a[0]", None, {"b": 1})]),
        ({"a b": 1, "": 1}, {"a b": 2, "": 2}, [("changed", '["a b"]', 1, 2), ("changed", '[""]', 1, 2)]),
        ({"a": {"b.c": None}}, {"a": {"b.c": 0}}, [("changed", 'a["b.c"]', None, 0)]),
        ({"a": 1}, {"a": True}, [("changed", "a", 1, True)]),
        ({"a": 1}, {"a": 1.0}, [("changed", "a", 1, 1.0)]),
        ({"a": None}, {}, [("removed", "a", None, None)]),
        ({"a": {}}, {"a": []}, [("changed", "a", {}, [])]),
        ([1], {}, [("changed", "$", [1], {})]),
    ],
)
def test_a_difference_is_told_by_its_path(old: Any, new: Any, told: list[tuple[Any, ...]]) -> None:
    assert [(one.kind, one.path, one.old, one.new) for one in differences(old, new)] == told
