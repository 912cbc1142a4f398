"""Every message of some parties by its name on the wire: its schema, and who handles and sends it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeAlias, cast

from messaging.contracts.json_schema import schema_of
from messaging.contracts.parties import Party, Sent
from messaging.errors import MessageDefinitionError
from messaging.messages import Command, Event, Failure, Message, Reply


class Kind(StrEnum):
    """What sort of message it is."""

    COMMAND = "command"
    REPLY = "reply"
    FAILURE = "failure"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class Contract:
    """What one wire name stands for."""

    name: str
    kind: Kind
    version: int
    handled_by: tuple[str, ...]
    sent_by: tuple[str, ...]
    reply: str
    """The wire name of a command's reply; else empty."""
    failures: tuple[str, ...]
    """The error codes that a command may be refused with."""
    schema: Mapping[str, Any]
    """JSON Schema, draft 2020-12, of the body."""


Use: TypeAlias = tuple[type[Message], tuple[str, ...], tuple[str, ...]]
"""A class, who handles it, who sends it."""


def contracts_of(parties: Sequence[Party]) -> dict[str, Contract]:
    """Collect what the parties receive and send, with replies and failures, by wire name in order of the alphabet.

    Where two versions of a message are in use, the newer one is shown.

    Raises:
        MessageDefinitionError: one wire name stands for two different things, or a class has no JSON Schema.
    """
    classes: dict[str, type[Message]] = {}
    found: dict[str, Contract] = {}
    for message, handled_by, sent_by in _uses(parties):
        contract = _contract(message, handled_by, sent_by)
        name = contract.name
        known = found.setdefault(name, contract)
        if known.version == contract.version and not _same(known, contract):
            raise _two_meanings(message, classes[name])
        classes.setdefault(name, message)
        found[name] = _together(*sorted((known, contract), key=lambda one: one.version))
    return {name: found[name] for name in sorted(found)}


def answers_of(command: type[Command[Any]]) -> tuple[type[Message], ...]:
    """What a command may be answered with: its reply, its failures, and the general `Failure`."""
    return (command.reply_type, *command.failure_types, Failure)


def command_of(message: type[Message]) -> type[Command[Any]] | None:
    """The class itself if it is a command."""
    if not issubclass(message, Command):
        return None
    return cast("type[Command[Any]]", message)  # type: ignore[redundant-cast] # pyright sees it as unknown


def kind_of(message: type[Message]) -> Kind:
    """Say what sort of message a class is."""
    if issubclass(message, Command):
        return Kind.COMMAND
    if issubclass(message, Event):
        return Kind.EVENT
    return Kind.REPLY if issubclass(message, Reply) else Kind.FAILURE


def _uses(parties: Iterable[Party]) -> Iterator[Use]:
    for party in parties:
        for received in party.receives:
            yield from _with_answers(received.message, (party.name,), ())
        for sent in party.sends:
            yield from _with_answers(sent.message, _participant_of(sent), (party.name,))


def _participant_of(sent: Sent) -> tuple[str, ...]:
    """Who handles a command, as far as it is known: a queue bears its service's name."""
    goes_to_one_queue = kind_of(sent.message) is Kind.COMMAND and not sent.to.exchange
    return (sent.to.routing_key,) if goes_to_one_queue else ()


def _with_answers(message: type[Message], handled_by: tuple[str, ...], sent_by: tuple[str, ...]) -> Iterator[Use]:
    yield message, handled_by, sent_by
    if command := command_of(message):
        for answer in answers_of(command):
            yield answer, sent_by, handled_by


def _contract(message: type[Message], handled_by: tuple[str, ...], sent_by: tuple[str, ...]) -> Contract:
    command = command_of(message)
    return Contract(
        message.wire_name,
        kind_of(message),
        message.schema_version,
        handled_by,
        sent_by,
        reply=command.reply_type.wire_name if command else "",
        failures=tuple(failure.wire_name for failure in command.failure_types) if command else (),
        schema=schema_of(message),
    )


def _same(one: Contract, other: Contract) -> bool:
    """Two copies of one class, each in a service's own package, are one contract."""
    return replace(one, handled_by=(), sent_by=()) == replace(other, handled_by=(), sent_by=())


def _together(older: Contract, newer: Contract) -> Contract:
    return replace(
        newer,
        handled_by=tuple(sorted({*older.handled_by, *newer.handled_by})),
        sent_by=tuple(sorted({*older.sent_by, *newer.sent_by})),
    )


def _two_meanings(one: type[Message], other: type[Message]) -> MessageDefinitionError:
    return MessageDefinitionError(
        one,
        f"({one.__module__}) has the wire name {one.wire_name!r}, and so has {other.__name__} ({other.__module__}), "
        f'which has another schema. Give one of them another: class {one.__name__}(..., name="...")',
    )
