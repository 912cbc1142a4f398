"""Signals as rows: what a saga has yet to be told, as (kind, JSON text) and back.

Kinds and fields are part of the database's contract with other releases: add, never rename.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.instance import Direction, SagaStatus, StepKey
from orchestrator.signals import (
    AbandonRequested,
    ActionRequested,
    Asked,
    CancelRequested,
    ChildEnded,
    ChildOrdered,
    CodeFailed,
    CompensateRequested,
    CompleteRequested,
    DeadlinePassed,
    EventMatched,
    Incoming,
    LocalFailed,
    LocalFinished,
    LocksDenied,
    LocksGranted,
    PauseRequested,
    ReplyReceived,
    ResolveRequested,
    ResumeRequested,
    RetryRequested,
    SkipRequested,
    Started,
    UpgradeRequested,
)

REPLY: Final = "reply"
EVENT: Final = "event"
CHILD_ENDED: Final = "child_ended"
CHILD_ORDER: Final = "child_order"
UPGRADE: Final = "upgrade:"
"""What the kind of a request for another version begins with; it is no signal for the core, see `upgrading`."""
LOCK_GRANTED: Final = "lock_granted"
LOCK_DENIED: Final = "lock_denied"
ACTIONS: Final[Mapping[str, type[ActionRequested]]] = {
    "cancel": CancelRequested,
    "retry": RetryRequested,
    "pause": PauseRequested,
    "resume": ResumeRequested,
    "skip": SkipRequested,
    "resolve": ResolveRequested,
    "compensate": CompensateRequested,
    "abandon": AbandonRequested,
    "complete": CompleteRequested,
}
"""What operators may ask for, by the word it has in rows, in the audit and in commands."""
_WORDS: Final = {action: word for word, action in ACTIONS.items()}


def action_word(asked: Asked) -> str:
    """The word for what an operator asks."""
    return "upgrade" if isinstance(asked, UpgradeRequested) else _WORDS[type(asked)]


def upgrade_kind(version: int) -> str:
    """The kind of a request for this version: an engine without it leaves the request to others."""
    return f"{UPGRADE}{version}"


def upgrade_from_row(body: str) -> UpgradeRequested:
    """The request that a row of such a kind stands for; what a later release has added to it is left out."""
    fields: dict[str, Any] = json.loads(body)
    return UpgradeRequested(fields["version"], fields["fingerprint"], fields["reason"], fields["by"])


def signal_to_row(incoming: Incoming | UpgradeRequested) -> tuple[str, str] | None:
    """The kind and body to store; None for what the saga's own rows tell again (a start, a deadline, a local step)."""
    match incoming:
        case ReplyReceived():
            moved = incoming.moves_deadline_by
            return REPLY, json.dumps(
                {
                    **_key_to_json(incoming.key),
                    "round": incoming.round,
                    "attempt": incoming.attempt,
                    "outcome": incoming.outcome,
                    "error_code": incoming.error_code,
                    "body": incoming.body,
                    "deadline_seconds": None if moved is None else moved.total_seconds(),
                }
            )
        case EventMatched():
            return EVENT, json.dumps(
                {
                    **_key_to_json(incoming.key),
                    "event_id": str(incoming.event_id),
                    "body": incoming.body,
                    "arrived_at": incoming.arrived_at.isoformat(),
                }
            )
        case ChildEnded():
            fields = {"status": incoming.status.value, "state": incoming.state, "text": incoming.text}
            return CHILD_ENDED, json.dumps({"step": incoming.step, "child_id": str(incoming.child_id), **fields})
        case ChildOrdered():
            return CHILD_ORDER, json.dumps(asdict(incoming))
        case UpgradeRequested():
            return upgrade_kind(incoming.version), json.dumps(asdict(incoming))
        case LocksGranted():
            return LOCK_GRANTED, json.dumps(asdict(incoming))
        case LocksDenied():
            return LOCK_DENIED, json.dumps(asdict(incoming))
        case Started() | DeadlinePassed() | LocalFinished() | LocalFailed() | CodeFailed():
            return None
        case _:
            return action_word(incoming), json.dumps(asdict(incoming))


def signal_from_row(kind: str, body: str) -> Incoming:
    """The signal a row stands for.

    Raises:
        ValueError: no such kind; a later release wrote it.
    """
    fields: dict[str, Any] = json.loads(body)
    match kind:
        case "reply":
            seconds = fields["deadline_seconds"]
            moved = None if seconds is None else timedelta(seconds=seconds)
            return ReplyReceived(
                _key_from_json(fields),
                fields["round"],
                fields["attempt"],
                fields["outcome"],
                fields["body"],
                fields["error_code"],
                moved,
            )
        case "event":
            arrived_at = datetime.fromisoformat(fields["arrived_at"])
            return EventMatched(_key_from_json(fields), UUID(fields["event_id"]), fields["body"], arrived_at)
        case "child_ended":
            status, child_id = SagaStatus(fields["status"]), UUID(fields["child_id"])
            return ChildEnded(fields["step"], child_id, status, fields["state"], fields["text"])
        case "child_order":
            return ChildOrdered(fields["order"], fields["reason"])
        case "lock_granted":
            return LocksGranted(**fields)
        case "lock_denied":
            return LocksDenied(**fields)
        case _ if kind in ACTIONS:
            return ACTIONS[kind](**fields)
        case _:
            raise ValueError(f"signal of unknown kind {kind!r}: written by a later release?")


def _key_to_json(key: StepKey) -> dict[str, str]:
    return {"step": key.step, "direction": key.direction.value, "branch": key.branch}


def _key_from_json(fields: dict[str, Any]) -> StepKey:
    return StepKey(fields["step"], Direction(fields["direction"]), fields["branch"])
