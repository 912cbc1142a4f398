"""PyMessagingFramework 2.x: its body around ours, its queues and its three exchanges.

Its messages have no properties, and its readers look at none. A body is an object with the fields as JSON text, the
name of the class, and whether it is a command or an event; any other key makes the message unreadable to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final, cast

from messaging.codec import Limits, parse_json
from messaging.envelope import Envelope, ExchangeKind
from messaging.errors import DecodeError
from messaging.transport import Outgoing

EXCHANGES: Final[Mapping[str, ExchangeKind]] = MappingProxyType(
    {"direct_exchange": "direct", "fanout_exchange": "fanout", "topic_exchange": "topic"}
)
"""Its exchanges and their kinds. They are not durable, and a service of it does not start where they are."""

_MESSAGE, _NAME, _TYPE = "message", "command_name", "command_type"
_COMMAND, _EVENT = "command", "event"


@dataclass(frozen=True, slots=True)
class PyMessagingFramework:
    """What goes to its exchanges or to these queues leaves in its words; the wire name is the name of its class.

    Args:
        queues: of services that still run on it, by their whole names.
    """

    queues: frozenset[str] = frozenset()

    def __call__(self, outgoing: Outgoing) -> Outgoing:
        """Wrap the body, and take the type away: so the message is told from ours by those who read both."""
        destination = outgoing.destination
        if kind := EXCHANGES.get(destination.exchange):
            destination = replace(destination, kind=kind)
        elif not destination.exchange and destination.routing_key in self.queues:
            destination = replace(destination, absolute=True)
        else:
            return outgoing
        envelope = outgoing.envelope
        wrapped = {
            _MESSAGE: json.dumps(json.loads(envelope.body)),
            _NAME: envelope.type,
            _TYPE: _COMMAND if destination.mandatory else _EVENT,
        }
        envelope = replace(envelope, body=json.dumps(wrapped).encode(), type="")
        return replace(outgoing, envelope=envelope, destination=destination)


def from_theirs(envelope: Envelope, limits: Limits) -> Envelope | None:
    """Unwrap a message without a type; None when it is none of theirs."""
    if f'"{_NAME}"'.encode() not in envelope.body:
        return None
    try:
        wrapped = parse_json(envelope.body, limits)
    except DecodeError:
        return None
    if not isinstance(wrapped, dict):
        return None
    parts = cast("dict[str, Any]", wrapped)
    message, name = parts.get(_MESSAGE), parts.get(_NAME)
    if not (isinstance(message, str) and isinstance(name, str)) or parts.keys() - {_MESSAGE, _NAME, _TYPE}:
        return None
    return replace(envelope, body=message.encode(), type=name)
