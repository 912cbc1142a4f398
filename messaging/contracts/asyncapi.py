"""An AsyncAPI 3.0 document of some parties: queues as channels, what they handle and send as operations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic.json_schema import models_json_schema

from messaging import envelope as wire
from messaging.contracts.catalogue import Kind, answers_of, command_of, contracts_of, kind_of
from messaging.contracts.json_schema import Json, rewritten
from messaging.contracts.parties import Party, Received, Sent
from messaging.envelope import EVENTS_EXCHANGE
from messaging.messages import Command, Message
from messaging.transport import Binding

_BINDING_VERSION: Final = "0.3.0"
_NO_KEY: Final = re.compile(r"[^A-Za-z0-9._-]")
_WORDS: Final = {"*": "any", "#": "all"}


def asyncapi(parties: Sequence[Party], *, title: str, version: str, prefix: str = "") -> Json:
    """Write the document, as the JSON that AsyncAPI's tools read.

    A command's channel is its participant's queue, an event's is its exchange and routing key, and the
    channel for replies has no address of its own: each command says in `reply_to` where to answer.

    Args:
        parties: whose messages.
        title: of the system.
        version: of the system.
        prefix: before the names of queues and exchanges, as the settings of the bus say it.

    Raises:
        MessageDefinitionError: one wire name stands for two different things, or a class has no JSON Schema.
    """
    contracts_of(parties)  # refuses what would be ambiguous
    return _Document(prefix).written(parties, title, version)


class _Document:
    """The parts of a document while they are gathered."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._channels: dict[str, Json] = {}
        self._operations: dict[str, Json] = {}
        self._messages: dict[str, type[Message]] = {}

    def written(self, parties: Sequence[Party], title: str, version: str) -> Json:
        for party in parties:
            for received in party.receives:
                self._receives(party, received)
            for sent in party.sends:
                self._sends(party, sent)
        payloads, schemas = _schemas(self._messages.values())
        return {
            "asyncapi": "3.0.0",
            "info": {"title": title, "version": version},
            "defaultContentType": wire.JSON,
            "channels": self._channels,
            "operations": self._operations,
            "components": {
                "messages": {key: _message(cls, payloads[cls]) for key, cls in self._messages.items()},
                "messageTraits": _TRAITS,
                "schemas": schemas,
            },
        }

    def _receives(self, party: Party, received: Received) -> None:
        message, binding = received.message, received.binding
        name = _key(f"{party.name}.receives.{message.wire_name}")
        if command_of(message):
            self._receives_in(self._queue(party.queue), name, party, message)
            name += ".by-exchange"  # as well
        if binding is not None:
            self._receives_in(self._exchange(binding), name, party, message)

    def _receives_in(self, channel: str, name: str, party: Party, message: type[Message]) -> None:
        operation = self._operation("receive", channel, message)
        operation["x-queue"] = self._prefix + party.queue
        operation["bindings"] = {"amqp": {"ack": True, "bindingVersion": _BINDING_VERSION}}
        self._operations[name] = operation

    def _sends(self, party: Party, sent: Sent) -> None:
        message, to = sent.message, sent.to
        if to.exchange:
            channel = self._exchange(Binding(to.routing_key, to.exchange, to.kind, to.absolute))
        else:
            channel = self._queue(to.routing_key)
        operation = self._operation("send", channel, message)
        amqp = {"deliveryMode": 2, "mandatory": to.mandatory, "bindingVersion": _BINDING_VERSION}
        operation["bindings"] = {"amqp": amqp}
        self._operations[_key(f"{party.name}.sends.{message.wire_name}.to.{channel}")] = operation

    def _operation(self, action: str, channel: str, message: type[Message]) -> Json:
        operation: Json = {
            "action": action,
            "channel": _ref("channels", channel),
            "messages": [self._in_channel(channel, message)],
        }
        if command := command_of(message):
            operation["reply"] = self._reply(channel, command)
        return operation

    def _reply(self, channel: str, command: type[Command[Any]]) -> Json:
        replies = f"{channel}.replies"
        self._channels.setdefault(
            replies,
            {
                "address": None,
                "messages": {},
                "description": "The queue that a command names in its property reply_to.",
            },
        )
        return {
            "address": {"location": "$message.header#/reply_to", "description": "AMQP property reply_to"},
            "channel": _ref("channels", replies),
            "messages": [self._in_channel(replies, answer) for answer in answers_of(command)],
        }

    def _queue(self, name: str) -> str:
        full = self._prefix + name
        queue = {"name": full, "durable": True, "exclusive": False, "autoDelete": False}
        return self._channel(name, full, {"is": "queue", "queue": queue})

    def _exchange(self, binding: Binding) -> str:
        name = binding.exchange if binding.absolute else self._prefix + binding.exchange
        exchange = {"name": name, "type": binding.kind, "durable": True, "autoDelete": False}
        of_key = binding.routing_key or binding.kind
        key = of_key if binding.exchange == EVENTS_EXCHANGE else f"{binding.exchange}.{of_key}"
        return self._channel(
            f"{EVENTS_EXCHANGE}.{key}", binding.routing_key, {"is": "routingKey", "exchange": exchange}
        )

    def _channel(self, name: str, address: str, amqp: Json) -> str:
        key = _key(name)
        bindings = {"amqp": {**amqp, "bindingVersion": _BINDING_VERSION}}
        self._channels.setdefault(key, {"address": address, "messages": {}, "bindings": bindings})
        return key

    def _in_channel(self, channel: str, message: type[Message]) -> Json:
        key = _key(message.wire_name)
        known = self._messages.setdefault(key, message)
        if message.schema_version > known.schema_version:
            self._messages[key] = message
        self._channels[channel]["messages"][key] = _ref("components", "messages", key)
        return _ref("channels", channel, "messages", key)


def _message(cls: type[Message], payload: Json) -> Json:
    kind = kind_of(cls)
    trait = "reply" if kind is Kind.FAILURE else kind.value
    written: Json = {"name": cls.wire_name, "title": cls.__name__}
    if cls.__doc__:
        written["description"] = cls.__doc__.strip()
    return written | {
        "contentType": wire.JSON,
        "payload": payload,
        "traits": [_ref("components", "messageTraits", trait)],
        "bindings": {"amqp": {"messageType": cls.wire_name, "bindingVersion": _BINDING_VERSION}},
        "x-kind": kind.value,
        "x-schema-version": cls.schema_version,
    }


def _schemas(classes: Iterable[type[Message]]) -> tuple[dict[type[Message], Json], Json]:
    """References to the classes' schemas, and the schemas of all models by name, in the words of draft 7."""
    known = tuple(classes)
    by_class, definitions = models_json_schema(
        [(cls, "validation") for cls in known], ref_template="#/components/schemas/{model}"
    )
    payloads: dict[type[Message], Json] = {cls: by_class[cls, "validation"] for cls in known}
    schemas = {name: rewritten(schema, _in_draft_7) for name, schema in definitions.get("$defs", {}).items()}
    return payloads, schemas


def _in_draft_7(schema: Json) -> Json:
    """Draft 2020-12 as AsyncAPI reads it, of what pydantic writes: tuples, and hints which model of a union it is."""
    schema.pop("discriminator", None)  # AsyncAPI's is a plain string
    if "prefixItems" in schema:
        schema["items"] = schema.pop("prefixItems")
    return schema


def _key(name: str) -> str:
    """A name as a key of the document."""
    return _NO_KEY.sub(lambda found: _WORDS.get(found[0], "-"), name)


def _ref(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}


def _headers(*names: str, **more: Json) -> Json:
    return {"type": "object", "properties": {name: {"type": "string"} for name in names} | more}


_CORRELATION: Final = {"location": "$message.header#/correlation_id", "description": "AMQP property correlation_id"}
_VERSION: Final = {wire.SCHEMA_VERSION: {"type": "integer", "default": 1}}
_OUTCOMES: Final = [wire.SUCCESS, wire.FAILURE, wire.RETRY, wire.ACCEPTED]
_TRACE: Final = (wire.TRACEPARENT, wire.TRACESTATE)
_TRAITS: Final[Json] = {
    "command": {
        "headers": _headers(
            wire.IDEMPOTENCY_KEY,
            wire.COMPENSATES,
            wire.DEADLINE,
            wire.SAGA_ID,
            wire.SAGA_NAME,
            wire.SAGA_STEP,
            *_TRACE,
            **_VERSION,
            **{wire.ATTEMPT: {"type": "integer"}},
        ),
        "correlationId": _CORRELATION,
    },
    "reply": {
        "headers": _headers(
            wire.ERROR_CODE,
            *_TRACE,
            **{wire.OUTCOME: {"type": "string", "enum": _OUTCOMES, "default": wire.SUCCESS}},
            **{wire.DEADLINE_SECONDS: {"type": "number"}},
        ),
        "correlationId": _CORRELATION,
    },
    "event": {"headers": _headers(wire.SAGA_ID, *_TRACE, **_VERSION)},
}
