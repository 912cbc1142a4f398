"""The page of rules names tests that exist."""

from __future__ import annotations

import ast
import re
from functools import lru_cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[2]
PAGE = TESTS.parent / "docs" / "rules.md"
ROW = re.compile(r"^\| (?!rule |fault )([^|]+) \|(.*)\|$", re.MULTILINE)
NAMED = re.compile(r"`([\w/]+\.py)::(\w+)`")


def page() -> str:
    return PAGE.read_text(encoding="utf-8")


@lru_cache
def named_in(file: str) -> frozenset[str]:
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED.findall(page()))))
def test_every_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert (TESTS / file).is_file(), file
    assert name.startswith("test_") and name in named_in(file)


def test_every_rule_of_the_page_names_a_test() -> None:
    rows = ROW.findall(page())

    assert len(rows) > 80
    assert [rule for rule, tests in rows if not NAMED.search(tests)] == []


def test_the_page_has_a_part_for_each_section_that_is_in_this_release() -> None:
    semantics = (PAGE.parent / "semantics.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## (\d+\. .+)$", semantics, re.MULTILINE)
    in_this_release = [section for section in sections if not section.endswith("*(planned)*")]

    assert re.findall(r"^## (\d+\. .+)$", page(), re.MULTILINE) == in_this_release
