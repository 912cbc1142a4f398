"""A saga that has not begun: from the author's state to the row that starts it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from pydantic import BaseModel

from messaging.codec import encode_body
from messaging.errors import UnencodableMessage
from orchestrator.definition import Saga
from orchestrator.errors import StateUnusable
from orchestrator.ids import new_saga_id
from orchestrator.instance import Parent, SagaInstance, SagaStatus
from orchestrator.registry import pin_of
from orchestrator.searchable import kept_values

S = TypeVar("S", bound=BaseModel)


def new_instance(
    saga: type[Saga[S]], state: S, key: str | None, trace: str, now: datetime, *, saga_id: UUID | None = None
) -> SagaInstance:
    """A saga that has not begun, with a new id unless one is given.

    Raises:
        StateUnusable: the state is of another type, or cannot be stored; or the key cannot.
    """
    if key is not None and (not key or "\x00" in key or len(key) > 255):
        raise StateUnusable(saga.name, "its key must be 1 to 255 characters without NUL")
    return _instance(saga, state, saga_id or new_saga_id(), now, business_key=key, trace=trace)


def child_instance(
    saga: type[Saga[S]], state: S, saga_id: UUID, parent: Parent, *, trace: str, now: datetime
) -> SagaInstance:
    """A child that has not begun.

    Raises:
        StateUnusable: the state is of another type, or cannot be stored.
    """
    return _instance(saga, state, saga_id, now, parent=parent, trace=trace)


def _instance(saga: type[Saga[S]], state: object, saga_id: UUID, now: datetime, **fields: Any) -> SagaInstance:
    if not isinstance(state, saga.state_type):
        raise StateUnusable(saga.name, f"it is a {type(state).__name__}, not a {saga.state_type.__name__}")
    try:
        text = encode_body(state).decode()
    except UnencodableMessage as error:
        raise StateUnusable(saga.name, str(error)) from error
    deadline = None if saga.deadline is None else now + saga.deadline
    return SagaInstance(
        saga_id,
        pin_of(saga),
        SagaStatus.RUNNING,
        text,
        revision=0,
        started_at=now,
        updated_at=now,
        wake_at=now,
        deadline=deadline,
        search=tuple(kept_values(searchable, text).items()) if (searchable := saga.plan.searchable) else (),
        keeps_state=saga.keep_states,
        **fields,
    )
