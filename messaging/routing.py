"""Which binding takes which routing key, for brokers that leave it to us. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from messaging.transport import Binding


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
