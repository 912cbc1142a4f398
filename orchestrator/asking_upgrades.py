"""Asking for a later version of a definition, for one saga or for all that have an earlier one; and looking before.

The twins below are the part of `SagaClient` and `BlockingSagaClient` that is about this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.asking import ANSWERED_WITHIN, AsksSagas, AsksSagasBlocking
from orchestrator.bulk import PER_SECOND, BulkResult
from orchestrator.definition import Saga
from orchestrator.instance import SagaInstance
from orchestrator.registry import pin_of
from orchestrator.signals import UpgradeRequested
from orchestrator.sql.versions import read_sagas, sagas_of_version
from orchestrator.upgrading import upgraded

_READ_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class Upgradable:
    """Whether one saga can be upgraded."""

    saga_id: UUID
    refused: str
    """Why not; empty if it can be."""
    passed_over: tuple[str, ...]
    """Steps of the new version that it will not run, since it is beyond their place."""


class AsksUpgrades(AsksSagas):
    """Ask from asyncio."""

    async def upgrade(
        self, saga_id: UUID, to: type[Saga[Any]], *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a saga go on with a later version of its definition, and wait until an engine has seen to it.

        Raises: as `cancel` does; refused when what the saga has begun, or its state, does not fit that version.
        """
        await self._ask(saga_id, _requested(to, reason, by), within)

    async def upgrade_all(
        self,
        to: type[Saga[Any]],
        *,
        from_version: int,
        reason: str,
        by: str = "",
        per_second: float = PER_SECOND,
        within: timedelta = ANSWERED_WITHIN,
    ) -> AsyncIterator[BulkResult]:
        """Upgrade all sagas of an earlier version, as they are at this moment; tell what came of each, as `bulk` does.

        Args:
            to: the version they are to have.
            from_version: the version they have.
            reason: why; kept with each saga.
            by: who asks.
            per_second: at most so many are asked in a second.
            within: so long each is waited for.
        """
        ids = await self._read(lambda c: sagas_of_version(c, to.name, from_version, schema=self._schema))
        async for result in self._each(_requested(to, reason, by), ids, per_second, within):
            yield result

    async def upgradable(
        self, to: type[Saga[Any]], *, from_version: int, old: type[Saga[Any]] | None = None
    ) -> Sequence[Upgradable]:
        """Tell of all sagas of an earlier version whether they can be upgraded, and why not. Reads only.

        Args:
            to: the version they are to have.
            from_version: the version they have.
            old: that version's class, where it is at hand: whether its pivot was passed is looked at then.
        """
        return await self._read(lambda c: _upgradable(c, to, from_version, old, self._schema))


class AsksUpgradesBlocking(AsksSagasBlocking):
    """Ask from threads; each method as in `AsksUpgrades`."""

    def upgrade(
        self, saga_id: UUID, to: type[Saga[Any]], *, reason: str, by: str = "", within: timedelta = ANSWERED_WITHIN
    ) -> None:
        """Have a saga go on with a later version of its definition; see `AsksUpgrades.upgrade`."""
        self._ask(saga_id, _requested(to, reason, by), within)

    def upgrade_all(
        self,
        to: type[Saga[Any]],
        *,
        from_version: int,
        reason: str,
        by: str = "",
        per_second: float = PER_SECOND,
        within: timedelta = ANSWERED_WITHIN,
    ) -> Iterator[BulkResult]:
        """Upgrade all sagas of an earlier version; see `AsksUpgrades.upgrade_all`."""
        ids = self._read(lambda c: sagas_of_version(c, to.name, from_version, schema=self._schema))
        return self._each(_requested(to, reason, by), ids, per_second, within)

    def upgradable(
        self, to: type[Saga[Any]], *, from_version: int, old: type[Saga[Any]] | None = None
    ) -> Sequence[Upgradable]:
        """Tell of all sagas of an earlier version whether they can be upgraded; see `AsksUpgrades.upgradable`."""
        return self._read(lambda c: _upgradable(c, to, from_version, old, self._schema))


def _requested(to: type[Saga[Any]], reason: str, by: str) -> UpgradeRequested:
    pin = pin_of(to)
    return UpgradeRequested(pin.version, pin.fingerprint, reason, by)


def _upgradable(
    connection: Connection, to: type[Saga[Any]], from_version: int, old: type[Saga[Any]] | None, schema: str | None
) -> list[Upgradable]:
    ids = sagas_of_version(connection, to.name, from_version, schema=schema)
    some = (ids[first : first + _READ_AT_ONCE] for first in range(0, len(ids), _READ_AT_ONCE))
    sagas = (saga for few in some for saga in read_sagas(connection, few, schema=schema).values())
    return [_told(to, saga, old) for saga in sagas]


def _told(to: type[Saga[Any]], saga: SagaInstance, old: type[Saga[Any]] | None) -> Upgradable:
    plan = old.plan if old is not None and pin_of(old) == saga.pin else None
    found = upgraded(to, saga, old=plan, now=datetime.now(UTC))
    return Upgradable(saga.id, found.refused, found.passed_over)
