"""Words that come in over HTTP, bounded, and fit to be stored."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

from fastapi import Header
from pydantic import AfterValidator, Field


class Action(StrEnum):
    """What operators may ask for, by the words of the core."""

    RETRY = "retry"
    CANCEL = "cancel"
    PAUSE = "pause"
    RESUME = "resume"
    SKIP = "skip"
    RESOLVE = "resolve"
    COMPENSATE = "compensate"
    ABANDON = "abandon"


def storable(text: str) -> str:
    """A text that a database takes.

    Raises:
        ValueError: it does not.
    """
    if "\0" in text or (not text.isprintable() and any(ord(one) < 32 and one not in "\t\n\r" for one in text)):
        raise ValueError("must not have control characters")
    return text


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must say why; it is kept with the saga")
    return text.strip()


Word: TypeAlias = Annotated[str, Field(max_length=400), AfterValidator(storable)]
Key: TypeAlias = Annotated[str, Field(max_length=200), AfterValidator(storable)]
IdempotencyKey: TypeAlias = Annotated[
    Key, Header(alias="idempotency-key", description="A request that is repeated under it is one")
]
Reason: TypeAlias = Annotated[
    str,
    Field(min_length=1, max_length=2000, description="Why; it is kept with the saga"),
    AfterValidator(storable),
    AfterValidator(_said),
]
