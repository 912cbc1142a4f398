"""Sagas that events start: under which key such an event is kept, and what becomes of it later.

An event is kept once more, under a key of its own, for each saga it starts. A later transaction finds it by that
key, starts the saga, and marks it as consumed: killed in between, the sweep finds it again. The saga's business
key decides, so that two processes, or a caller beside them, start one.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from messaging.messages import Event
from messaging.printable import error_text
from orchestrator.definition import Saga
from orchestrator.instance import SagaInstance
from orchestrator.plan import EventStart
from orchestrator.registry import KnownEvent, SagaRegistry
from orchestrator.start import new_instance
from orchestrator.store import StoreTransaction
from orchestrator.store_records import StartingEvent, UnmatchedMessage

logger = logging.getLogger(__name__)

STARTS: Final = "saga-start:"
"""Prefix of the key under which an event is kept that starts a saga; then the saga's name, `/` and its key."""
STARTED_NOTHING: Final = UUID(int=0)
"""Who consumed an event that can start no saga; the event is among the unmatched messages."""


_NO_MATTER_WHEN: Final = datetime(2000, 1, 1, tzinfo=UTC)


class Taken(NamedTuple):
    """How many events were looked at, and how many of them can start nothing."""

    events: int
    refused: int


def keys_of_starts(event: Event, known: KnownEvent) -> Iterator[str]:
    """The keys under which an event is kept for the sagas it starts.

    Raises:
        Exception: a hook of the author's did, or what it returned can start no saga.
    """
    for saga, start in known.starts:
        yield _kept_under(_to_start(saga, start, event, _NO_MATTER_WHEN))


async def start_by_events(
    tx: StoreTransaction, registry: SagaRegistry, event_ids: Sequence[UUID] | None, *, limit: int
) -> Taken:
    """Start the sagas of kept events, or find that they are there already; either way the events are consumed."""
    found = await tx.starting_events(registry.starting, STARTS, event_ids=event_ids, limit=limit)
    unconsumed = await tx.lock_events([event.event_id for event in found])
    now = await tx.now()
    consumed: dict[UUID, UUID] = {}
    refused: list[UnmatchedMessage] = []
    # In order of their keys: two processes never wait for each other in a circle.
    for event in sorted(found, key=lambda event: event.key):
        if event.event_id not in unconsumed:
            continue
        new = _read(registry, event, now)
        if isinstance(new, UnmatchedMessage):
            refused.append(new)
            consumed[event.event_id] = STARTED_NOTHING
        elif new is not None:
            saga, instance = new
            started, _ = await tx.start(instance, reuse_key_after_end=saga.reuse_key_after_end)
            consumed[event.event_id] = started
    await tx.consume_events(consumed)
    await tx.add_unmatched(refused)
    return Taken(len(consumed), len(refused))


def _read(
    registry: SagaRegistry, kept: StartingEvent, now: datetime
) -> tuple[type[Saga[Any]], SagaInstance] | UnmatchedMessage | None:
    """The saga to start; why there is none; or None where this process does not know the saga."""
    name = kept.key.removeprefix(STARTS).partition("/")[0]
    known = registry.events[kept.wire_name]
    found = next((one for one in known.starts if one[0].name == name), None)
    if found is None:
        return None
    saga, start = found
    try:
        instance = _to_start(saga, start, start.event.model_validate_json(kept.body), now)
        if _kept_under(instance) != kept.key:
            raise ValueError(f"its key is {kept.key!r} here, and {_kept_under(instance)!r} by the hooks")
    except Exception as error:  # the author's hooks; whatever they raise, other events go on
        reason = f"it starts no {name!r}: {error_text(error)}"
        logger.exception("Event %s is put aside", kept.message_id, extra={"message_id": kept.message_id})
        return UnmatchedMessage(kept.message_id, reason, kept.body.encode(), json.dumps({"type": kept.wire_name}))
    return saga, instance


def _to_start(saga: type[Saga[Any]], start: EventStart, event: Event, now: datetime) -> SagaInstance:
    key: Any = start.start.event_key(event)
    if not isinstance(key, str):
        raise TypeError(f"event_key() of {type(start.start).__name__} returned {key!r}, which is no str")
    return new_instance(saga, start.start.state(event), key, "", now)


def _kept_under(instance: SagaInstance) -> str:
    return f"{STARTS}{instance.pin.name}/{instance.business_key}"
