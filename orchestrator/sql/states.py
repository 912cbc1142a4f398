"""States as they were, of sagas that keep them: one statement for a batch in which one has changed; none for others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert

from orchestrator.instance import SagaInstance, StepKey
from orchestrator.signals import STARTED, Decision, KeptState
from orchestrator.sql.tables import in_schema, saga_state


def write_states(connection: Connection, decisions: Sequence[Decision], now: datetime, schema: str | None) -> None:
    """Keep the states that these decisions came to, with the revisions that they are saved as."""
    rows = [
        _row(decision.instance, decision.instance.revision + 1, position, kept, now)
        for decision in decisions
        for position, kept in enumerate(decision.states)
    ]
    connection.execute(insert(in_schema(saga_state, schema)), rows)


def write_first_states(connection: Connection, sagas: Sequence[SagaInstance], schema: str | None) -> None:
    """Keep the states that sagas begin with."""
    if not sagas:
        return
    first = [(saga, KeptState(StepKey(""), STARTED, saga.state, saga.pin.version)) for saga in sagas]
    rows = [_row(saga, saga.revision, 0, kept, saga.started_at) for saga, kept in first]
    connection.execute(insert(in_schema(saga_state, schema)), rows)


def _row(saga: SagaInstance, revision: int, position: int, kept: KeptState, at: datetime) -> dict[str, Any]:
    return {
        "saga_id": saga.id,
        "revision": revision,
        "position": position,
        "version": kept.version,
        "step": kept.key.step,
        "direction": kept.key.direction.value,
        "branch": kept.key.branch,
        "cause": kept.cause,
        "state": kept.state,
        "at": at,
    }
