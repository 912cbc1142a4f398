"""Bindings: which fit together, and which takes which routing key, for brokers that leave it to us. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, get_args

from messaging.envelope import ExchangeKind
from messaging.transport import Binding

_KINDS: Final = get_args(ExchangeKind)


def matches(binding: Binding, routing_key: str) -> bool:
    """Whether what is published with this routing key reaches the bound queue."""
    if binding.kind == "fanout":
        return True
    if binding.kind == "direct":
        return binding.routing_key == routing_key
    return _topic_pattern(binding.routing_key).fullmatch(f".{routing_key}") is not None


@lru_cache(maxsize=1024)
def _topic_pattern(binding_key: str) -> re.Pattern[str]:
    """A binding's words as a pattern: `*` is one word, `#` any number, none included."""
    pattern = ""
    words = binding_key.split(".")
    # Every word is matched with a dot before it, so that `#` can stand for no word at all.
    for word in words:
        pattern += r"(?:\.[^.]*)*" if word == "#" else r"\.[^.]*" if word == "*" else r"\." + re.escape(word)
    return re.compile(pattern, re.DOTALL)


def binding_problem(binding: Binding | None, others: Iterable[Binding]) -> str:
    """Why a binding cannot be beside the others of its service; empty when it can."""
    if binding is None:
        return ""
    if binding.kind not in _KINDS:
        return f"binds to an exchange of kind {binding.kind!r}. Say one of: {', '.join(_KINDS)}"
    for other in others:
        if (other.exchange, other.absolute) == (binding.exchange, binding.absolute) and other.kind != binding.kind:
            return (
                f"binds to exchange {binding.exchange!r} as {binding.kind}, and another handler as {other.kind}. "
                "An exchange is of one kind: correct one of them, or use two exchanges"
            )
    return ""
