"""Commands and events of sagas as messages: the headers of the wire format, from the rows."""

from __future__ import annotations

from datetime import datetime

from messaging import envelope as wire
from messaging.compose import compose_event
from messaging.current_trace import parted
from messaging.envelope import Envelope, HeaderValue, to_queue, to_subscribers
from messaging.messages import Event
from messaging.transport import Outgoing
from orchestrator.ids import idempotency_key
from orchestrator.instance import SagaInstance
from orchestrator.reply_tokens import ReplyTokens
from orchestrator.store_records import SagaCommand

APP_ID = "sagasmith"


def command_message(
    command: SagaCommand, *, reply_to: str, now: datetime, tokens: ReplyTokens | None = None
) -> Outgoing:
    """The message of one attempt of a command; the same whoever sends it, and however often."""
    record = command.record
    assert record.body is not None and record.command_id is not None
    message_id = str(record.command_id)
    headers: dict[str, HeaderValue] = {
        wire.IDEMPOTENCY_KEY: idempotency_key(command.saga_id, record.key, record.round),
        wire.SAGA_ID: str(command.saga_id),
        wire.SAGA_NAME: command.saga_name,
        wire.SAGA_STEP: record.key.step,
        wire.ATTEMPT: record.attempt,
        wire.SCHEMA_VERSION: record.schema_version,
    }
    if record.compensates:
        headers[wire.COMPENSATES] = record.compensates
    if record.deadline is not None:
        headers[wire.DEADLINE] = record.deadline.isoformat()
    if tokens is not None:
        headers[wire.REPLY_TOKEN] = tokens.token_of(record.command_id)
    headers |= parted(command.trace)
    envelope = Envelope(
        message_id,
        record.body.encode(),
        record.wire_name,
        correlation_id=message_id,
        reply_to=reply_to,
        timestamp=now,
        app_id=APP_ID,
        headers=headers,
    )
    return Outgoing(envelope, to_queue(record.participant), may_join=command.send_attempts <= 1)


def event_message(event: Event, saga: SagaInstance) -> Outgoing:
    """The message of an event that a saga publishes."""
    headers: dict[str, HeaderValue] = {wire.SAGA_ID: str(saga.id), wire.SAGA_NAME: saga.pin.name}
    headers |= parted(saga.trace)
    envelope = compose_event(event, correlation_id=str(saga.id), headers=headers, app_id=APP_ID)
    return Outgoing(envelope, to_subscribers(event.wire_name))
