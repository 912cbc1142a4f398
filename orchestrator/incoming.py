"""Deliveries read into what they are: a reply, an event, or something unusable with why. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeAlias
from uuid import UUID, uuid4

from pydantic import ValidationError

from messaging import envelope as wire
from messaging.codec import Limits, check_json
from messaging.current_trace import joined
from messaging.dialects import in_our_words
from messaging.envelope import Envelope
from messaging.errors import DecodeError
from messaging.evolution import body_of_today
from messaging.printable import error_text
from messaging.transport import Delivery
from orchestrator.event_starts import keys_of_starts
from orchestrator.progress import KEYLESS
from orchestrator.registry import KnownEvent
from orchestrator.start_messages import SAGA_KEY, START
from orchestrator.store_records import ReceivedEvent, UnmatchedMessage, UnreadEvent


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply to a command whose id it carries; whether we sent that command, the store knows."""

    command_id: UUID
    outcome: str
    body: str
    error_code: str
    moves_deadline_by: timedelta | None
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Not JSON, or over a limit: dead-lettered with its raw bytes."""

    reason: str
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Unmatched:
    """JSON that fits nothing here: kept whole in the database."""

    reason: str
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class UnknownEvent(Unmatched):
    """An event of a type that no definition here waits for; another process may have one that does."""

    unread: ReceivedEvent


@dataclass(frozen=True, slots=True)
class Events:
    """An event, once for each key under which it may be awaited."""

    rows: tuple[ReceivedEvent, ...]
    delivery: Delivery


@dataclass(frozen=True, slots=True)
class Start:
    """A message that starts a saga, from whoever has another database; see `start_later`."""

    saga_name: str
    version: int | None
    """None: the latest that is known here."""
    saga_id: UUID
    key: str | None
    body: str
    trace: str
    elsewhere: UnknownEvent
    """What it is where this saga is not known."""
    delivery: Delivery


Read: TypeAlias = Reply | Events | Start | Undecodable | Unmatched


def read_reply(delivery: Delivery, limits: Limits) -> Reply | Undecodable | Unmatched:
    """Read a delivery of the reply queue."""
    problem = _undecodable(delivery, limits)
    if problem:
        return Undecodable(problem, delivery)
    envelope = delivery.envelope
    try:
        command_id = UUID(envelope.correlation_id)
    except ValueError:
        return Unmatched(f"its correlation id {envelope.correlation_id!r} is of nothing we sent", delivery)
    outcome = envelope.text_header(wire.OUTCOME) or wire.SUCCESS
    moved = _seconds(envelope.headers.get(wire.DEADLINE_SECONDS))
    error_code = envelope.text_header(wire.ERROR_CODE)
    return Reply(command_id, outcome, envelope.body.decode(), error_code, moved, delivery)


def read_event(
    delivery: Delivery, known: Mapping[str, KnownEvent], limits: Limits, keep_for: timedelta
) -> Events | Start | Undecodable | Unmatched:
    """Read a delivery of the event queue: a start message, or an event with the keys that the definitions give it."""
    problem = _undecodable(delivery, limits)
    if problem:
        return Undecodable(problem, delivery)
    try:
        envelope = in_our_words(delivery.envelope, limits)
    except DecodeError as error:
        return Unmatched(error.problem, delivery)
    if envelope.type.startswith(START):
        return _read_start(envelope, delivery, keep_for)
    event_type = known.get(envelope.type)
    if event_type is None:
        reason = f"no saga here waits for events of type {envelope.type!r}"
        return UnknownEvent(reason, delivery, _unread(envelope, keep_for))
    try:
        body = body_of_today(event_type.event, envelope, limits)
        keys = _keys_of(body, envelope.text_header(wire.SAGA_ID), event_type)
    except DecodeError as error:
        return Unmatched(error.problem, delivery)
    except ValidationError as error:
        return Unmatched(f"the body is no {envelope.type!r}: {error.error_count()} fields are wrong", delivery)
    except Exception as error:  # noqa: BLE001 - the author's hooks; whatever they raise, the consumer lives on
        return Unmatched(f"a hook for events raised {error_text(error)}", delivery)
    message_id = envelope.message_id or str(uuid4())
    rows = tuple(ReceivedEvent(message_id, envelope.type, key, body.decode(), keep_for) for key in keys)
    return Events(rows, delivery) if rows else Unmatched("no key, and no saga-id header to match by", delivery)


def _read_start(envelope: Envelope, delivery: Delivery, keep_for: timedelta) -> Start | Unmatched:
    name, _, version = envelope.type.removeprefix(START).partition(":")
    try:
        saga_id = UUID(envelope.text_header(wire.SAGA_ID))
        wanted = int(version) if version else None
    except ValueError as error:
        return Unmatched(f"a start message needs a UUID as saga-id, and a number as version: {error}", delivery)
    key = envelope.text_header(SAGA_KEY) if SAGA_KEY in envelope.headers else None
    trace = joined({name: envelope.text_header(name) for name in (wire.TRACEPARENT, wire.TRACESTATE)})
    elsewhere = UnknownEvent(f"no saga of {envelope.type!r} is known", delivery, _unread(envelope, keep_for))
    return Start(name, wanted, saga_id, key, envelope.body.decode(), trace, elsewhere, delivery)


def _unread(envelope: Envelope, keep_for: timedelta) -> ReceivedEvent:
    names = (wire.SAGA_ID, wire.SCHEMA_VERSION, SAGA_KEY, wire.TRACEPARENT, wire.TRACESTATE)
    headers = {name: envelope.headers[name] for name in names if name in envelope.headers}
    body = json.dumps({"body": envelope.body.decode(), "headers": headers}, ensure_ascii=False)
    return ReceivedEvent(envelope.message_id or str(uuid4()), envelope.type, "", body, keep_for)


def read_kept(
    unread: UnreadEvent, known: Mapping[str, KnownEvent], limits: Limits, keep_for: timedelta
) -> Events | Start | Undecodable | Unmatched:
    """Read an event, or a start message, that a process could not read which took it."""
    kept = json.loads(unread.body)
    envelope = Envelope(unread.message_id, kept["body"].encode(), unread.wire_name, headers=kept["headers"])
    return read_event(Delivery(envelope, "", tag=0, epoch=0), known, limits, keep_for)


def _keys_of(body: bytes, saga_id: str, known: KnownEvent) -> list[str]:
    event = known.event.model_validate_json(body)
    keys: dict[str, None] = {}
    for leaf in known.waits:
        key = leaf.step.event_key(event)
        if key is not None:
            keys[key] = None
        elif saga_id:
            keys[f"{KEYLESS}{saga_id}"] = None
    return [*keys, *keys_of_starts(event, known)]


def _undecodable(delivery: Delivery, limits: Limits) -> str:
    if delivery.problem:
        return delivery.problem
    try:
        if delivery.envelope.body:
            check_json(delivery.envelope.body, limits)
    except DecodeError as error:
        return error.problem
    return _text_problem(delivery.envelope)


def _text_problem(envelope: Envelope) -> str:
    texts = (envelope.message_id, envelope.type, envelope.correlation_id, *map(str, envelope.headers.values()))
    if any("\x00" in text for text in texts):
        return "a property holds a NUL character, which databases refuse in text"
    return ""


def _seconds(value: object) -> timedelta | None:
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return timedelta(seconds=min(seconds, 366 * 86400)) if math.isfinite(seconds) and seconds > 0 else None


def unmatched_message(
    item: Unmatched | Undecodable | Reply | Start, reason: str, saga_id: UUID | None = None
) -> UnmatchedMessage:
    """The row that keeps a message whole."""
    envelope = item.delivery.envelope
    properties = {
        "type": envelope.type,
        "correlation_id": envelope.correlation_id,
        "reply_to": envelope.reply_to,
        "content_type": envelope.content_type,
        "app_id": envelope.app_id,
        "queue": item.delivery.queue,
        "headers": dict(envelope.headers),
    }
    text = json.dumps(properties, default=str)
    return UnmatchedMessage(envelope.message_id, reason, envelope.body, text, saga_id or _to_be_started(envelope))


def _to_be_started(envelope: Envelope) -> UUID | None:
    """The id that a start message chose."""
    try:
        return UUID(envelope.text_header(wire.SAGA_ID)) if envelope.type.startswith(START) else None
    except ValueError:
        return None
