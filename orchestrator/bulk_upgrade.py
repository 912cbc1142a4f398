"""Many sagas to a later version: a frozen list of them, asked for some at a time, with one result each.

Written against a blocking connection, for both clients. What an engine would say of each is told beforehand too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.definition import Saga
from orchestrator.instance import SagaInstance
from orchestrator.registry import pin_of
from orchestrator.signal_codec import upgrade_kind
from orchestrator.sql import client_statements as statements
from orchestrator.sql.versions import read_sagas, sagas_of_version
from orchestrator.upgrading import UpgradeRequested, upgraded

_AT_ONCE: Final = 100
"""How many are asked for before their answers are awaited, so that engines have room for their work."""


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """What became, or would become, of one saga."""

    saga_id: UUID
    refused: str = ""
    """Why it keeps its version; empty when it was, or can be, upgraded."""
    passed_over: tuple[str, ...] = ()
    """Told beforehand only: steps of the new version that it will not run, since it is beyond their place."""
    unanswered: bool = False
    """No engine that has the version has answered in time, so no more were asked."""


def requested(to: type[Saga[Any]], reason: str, by: str) -> tuple[str, str]:
    """The kind and the body of the signal that asks for this version."""
    pin = pin_of(to)
    return upgrade_kind(pin.version), UpgradeRequested(pin.version, pin.fingerprint, reason, by).body


def upgradable(
    connection: Connection,
    to: type[Saga[Any]],
    from_version: int,
    *,
    old: type[Saga[Any]] | None = None,
    schema: str | None = None,
) -> list[UpgradeResult]:
    """Tell of each saga whether it can be upgraded, and why not. Reads only.

    Args:
        connection: of the orchestrator's database.
        to: the new version.
        from_version: which sagas of its name.
        old: their definition, where it is known: its pivot is looked at then.
        schema: of our tables.
    """
    ids = sagas_of_version(connection, to.name, from_version, schema=schema)
    some = (ids[first : first + _AT_ONCE] for first in range(0, len(ids), _AT_ONCE))
    sagas = (saga for few in some for saga in read_sagas(connection, few, schema=schema).values())
    return [_told(to, saga, old) for saga in sagas]


def _told(to: type[Saga[Any]], saga: SagaInstance, old: type[Saga[Any]] | None) -> UpgradeResult:
    plan = old.plan if old is not None and pin_of(old) == saga.pin else None
    found = upgraded(to, saga, old=plan, now=datetime.now(UTC))
    return UpgradeResult(saga.id, found.refused, found.passed_over)


class UpgradesAsked:
    """Upgrades that are asked for and answered. Call `ask` and `look` in turn, until there is nothing to ask."""

    def __init__(self, to: type[Saga[Any]], reason: str, by: str, schema: str | None) -> None:
        self._to, self._request, self._schema = to, requested(to, reason, by), schema
        self._left: list[UUID] = []
        self._open: dict[UUID, UUID] = {}
        self.results: list[UpgradeResult] = []

    def freeze(self, connection: Connection, from_version: int) -> None:
        """Read which sagas it concerns; what starts later is not among them."""
        self._left = sagas_of_version(connection, self._to.name, from_version, schema=self._schema)

    def ask(self, connection: Connection) -> bool:
        """Leave some requests; False when all were asked for, or an answer has not come."""
        if self._open or not self._left:
            return False
        some, self._left = self._left[:_AT_ONCE], self._left[_AT_ONCE:]
        for saga_id in some:
            signal_id = statements.ask(connection, saga_id, *self._request, self._schema)
            if signal_id is not None:
                self._open[signal_id] = saga_id
        return True

    def look(self, connection: Connection) -> bool:
        """Take the answers that are there; whether all that were asked for are answered."""
        for signal_id, refused in statements.answers_to(connection, list(self._open), self._schema).items():
            self.results.append(UpgradeResult(self._open.pop(signal_id), refused))
        return not self._open

    def unanswered(self) -> list[UpgradeResult]:
        """All results, with those that no engine has answered."""
        kept = f"no engine that has v{self._to.version} took the request; it is kept, and will be taken by one"
        left = [(one, kept) for one in self._open.values()] + [(one, "it was not asked for") for one in self._left]
        return [*self.results, *(UpgradeResult(saga_id, why, unanswered=True) for saga_id, why in left)]
