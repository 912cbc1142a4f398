"""What is on the broker beside what the code wants: read from the broker's refusals, and told side by side."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from messaging.rabbitmq.definitions import Argument, Exchange, Queue

_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for .*: received .* but current is (?P<found>.+)"
)
_VALUE: Final = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '(?P<type>\w+)')?\Z", re.DOTALL)
_TEXTS: Final = ("longstr", "binary")


@dataclass(frozen=True, slots=True)
class Difference:
    """One property in which a definition is not what it should be; None where it is not set."""

    name: str
    wanted: Argument | None
    found: Argument | None


def difference_told(refusal: str, wanted: Queue | Exchange) -> Difference | None:
    """Read the difference that a broker's refusal tells, which is one at a time; None when it tells none."""
    told = _INEQUIVALENT.search(refusal)
    if told is None:
        return None
    value = wanted.properties().get(told["name"])
    return Difference(told["name"], value, _read(told["found"].strip(), like=value))


def _read(text: str, *, like: Argument | None) -> Argument | None:
    found = _VALUE.match(text)
    if found is None:
        return None  # the word none
    value = found["value"]
    if found["type"] in _TEXTS or (found["type"] is None and isinstance(like, str)):
        return value
    if value in ("true", "false"):
        return value == "true"
    return int(value) if re.fullmatch(r"-?\d+", value) else value


def side_by_side(differences: Sequence[Difference]) -> str:
    """A line for each, in columns."""
    rows = [("", "wanted", "on the broker")]
    rows += [(one.name, _shown(one.wanted), _shown(one.found)) for one in differences]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"  {name:<{widths[0]}}  {wanted:<{widths[1]}}  {found}" for name, wanted, found in rows)


def advice(part: Queue | Exchange) -> str:
    """What to do about a definition that differs: neither we nor the broker can change one in place."""
    if isinstance(part, Exchange):
        return (
            f"Use it as it is: say its kind where you subscribe and publish, not {part.type!r}; or use another one. Or "
            "delete it: each consumer binds its queue again when it starts, and what is published meanwhile is lost."
        )
    return (
        "Declare it as it is: the service's queue=QueueOptions(...), MESSAGING_QUEUE_TYPE. Or have it made anew: let "
        f"consumers empty it, stop them, rabbitmqctl delete_queue {part.name} --if-empty, and start them again."
    )


def _shown(value: Argument | None) -> str:
    if value is None:
        return "(not set)"
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'
