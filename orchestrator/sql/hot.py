"""What every batch does to a database: one room for each kind, behind one protocol.

All of it is written against a blocking `Connection`, so that asynchronous code (through `run_sync`) and
blocking code share it. What runs rarely is in `cold.py`, the same for all databases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Protocol, TypeAlias
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.instance import Pin, SagaInstance
from orchestrator.signal_codec import ACTIONS, UPGRADE
from orchestrator.signals import Decision
from orchestrator.store_records import CommandRef, DueWork, SagaCommand

_PENDING: Final = (
    "i.id IN (SELECT saga_id FROM {saga_signal} "  # noqa: S608 - a constant of ours
    f"WHERE taken_at IS NULL AND error = '' AND kind NOT LIKE '{UPGRADE}%'"
)
_ACTIONS: Final = ", ".join(f"'{word}'" for word in ACTIONS)
# Two plain lists of ids: one list that looks at `i` would be read anew for each instance.
SIGNALLED: Final = f"{_PENDING}) AND (i.paused_at IS NULL OR {_PENDING} AND kind IN ({_ACTIONS})))"
"""The condition that an instance `i` has pending signals which it takes now; write it through `named`."""


Loaded: TypeAlias = tuple[datetime, dict[UUID, SagaInstance]]
"""Sagas, and the instant read after they were locked."""


class Hot(Protocol):
    """The statements of one kind of database. Sequences and mappings are never empty."""

    def now(self, connection: Connection) -> datetime:
        """The database's current instant, or the clock's that stands in for it."""
        ...

    def due(self, connection: Connection) -> DueWork:
        """What is due, or pending, along three indexes."""
        ...

    def lock_commands(
        self, connection: Connection, command_ids: Sequence[UUID]
    ) -> tuple[dict[UUID, CommandRef], Loaded]:
        """Find attempts, replaced ones included; lock and load their sagas."""
        ...

    def lock(self, connection: Connection, saga_ids: Sequence[UUID]) -> Loaded:
        """Lock and load; the instant is read after the locks are held."""
        ...

    def lock_due(self, connection: Connection, pins: Sequence[Pin], limit: int, *, only_new: bool) -> Loaded:
        """Lock and load what is due, earliest first; with `only_new`, what has no steps yet."""
        ...

    def lock_signalled(self, connection: Connection, pins: Sequence[Pin], limit: int) -> Loaded:
        """Lock and load what has pending signals; what is paused, if operators asked for something."""
        ...

    def lock_where(self, connection: Connection, condition: str, values: Mapping[str, Any], limit: int) -> Loaded:
        """Lock and load what a condition on an instance `i` names, in order of id; what others hold is passed over."""
        ...

    def save(self, connection: Connection, decisions: Sequence[Decision], now: datetime) -> None:
        """Write instances, records and replaced ids."""
        ...

    def mark_sent(self, connection: Connection, command_ids: Sequence[UUID], now: datetime) -> None:
        """Note what was confirmed."""
        ...

    def claim_unsent(self, connection: Connection, now: datetime, limit: int, grace: timedelta) -> list[SagaCommand]:
        """Take what is due to be sent."""
        ...

    def put_off_sends(self, connection: Connection, problems: Mapping[UUID, tuple[datetime, str]]) -> None:
        """Note what could not be sent."""
        ...


# The first of each index, and no EXISTS: for one, a planner that expects a third of all rows to be due reads the table.
DUE: Final = (
    "SELECT COALESCE((SELECT wake_at FROM {saga_instance} "
    "WHERE wake_at IS NOT NULL ORDER BY wake_at LIMIT 1) <= :now, FALSE), "
    "(SELECT saga_id FROM {saga_signal} "
    "WHERE taken_at IS NULL AND error = '' ORDER BY saga_id LIMIT 1) IS NOT NULL, "
    "COALESCE((SELECT send_after FROM {saga_step} "
    "WHERE send_after IS NOT NULL ORDER BY send_after LIMIT 1) <= :now, FALSE)"
)
"""What is due at `:now`, as `DueWork` has it; write it through `named`."""


def named(schema: str | None, statement: str) -> str:
    """Put the schema before the names of our tables, which statements write as `{saga_step}`."""
    prefix = "" if schema is None else '"{}".'.format(schema.replace('"', '""'))
    return statement.replace("{saga_", f"{prefix}saga_").replace("}", "")


def known_pins(pins: Sequence[Pin]) -> tuple[str, dict[str, str | int]]:
    """The condition that an instance `i` belongs to one of these definitions, with its parameters.

    A chain of OR and no join: the scan keeps the order of its index, and stops at its limit.
    """
    one = "i.name = :name{0} AND i.version = :version{0} AND i.fingerprint = :fingerprint{0}"
    values: dict[str, str | int] = {}
    for number, pin in enumerate(pins):
        values |= {
            f"name{number}": pin.name,
            f"version{number}": pin.version,
            f"fingerprint{number}": pin.fingerprint,
        }
    return "(" + " OR ".join(one.format(number) for number in range(len(pins))) + ")", values
