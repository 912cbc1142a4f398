"""Holding a definition, so that its sagas do not begin, and releasing it. No engine takes part.

The twins below are the part of `SagaClient` and `BlockingSagaClient` that is about this.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias
from uuid import UUID

from sqlalchemy import Connection

from orchestrator.asking import AsksSagas, AsksSagasBlocking
from orchestrator.errors import HoldRefused
from orchestrator.holds import Hold, named
from orchestrator.sql import holds
from orchestrator.sql.holds import Asked
from orchestrator.words import instant

_AT_ONCE: Final = 1000
"""Sagas woken in a transaction."""

Place: TypeAlias = UUID | None
Writes: TypeAlias = Callable[[Callable[[Connection], Place]], Awaitable[Place]]
"""Runs something in a transaction of its own."""


class HoldsDefinitions(AsksSagas):
    """Ask from asyncio."""

    async def hold(self, saga: str, *, version: int | None = None, reason: str, by: str = "") -> Hold:
        """Keep sagas from beginning until they are released; each engine heeds it within a second.

        Starting is accepted all the same, and what is started waits. What has begun goes on, its children too. It
        may be asked for before any engine has the version.

        Args:
            saga: the definition's name.
            version: which of its versions; None for all of them.
            reason: why; told by `saga why` of each saga that waits.
            by: who asks.

        Raises:
            HoldRefused: just that is held already; the text says by whom and why.
        """
        asked = Asked(saga, version, reason, by)
        return await self._write(lambda c: hold_now(c, asked, self._schema))

    async def release(self, saga: str, *, version: int | None = None, reason: str, by: str = "") -> Sequence[Hold]:
        """Let sagas begin again, what waits first; return the holds that are over.

        Args:
            saga: the definition's name.
            version: the one that is held; None ends all holds of that name.
            reason: why; kept with the hold.
            by: who asks.

        Raises:
            HoldRefused: that is not held. What still waited for an earlier release was woken all the same.
        """
        asked = Asked(saga, version, reason, by)
        released = await self._write(lambda c: holds.release(c, asked, datetime.now(UTC), self._schema))
        await wake_all(self._write, asked, self._schema)
        if not released:
            raise await self._read(lambda c: not_held(c, asked, self._schema))
        return released

    async def holds(self) -> Sequence[Hold]:
        """What is held now, the longest held first."""
        return await self._read(lambda c: holds.held(c, self._schema))

    async def not_begun(self, saga: str, *, version: int | None = None) -> int:
        """Count sagas that have not begun; with a hold, those that wait for its end."""
        return await self._read(lambda c: holds.waiting(c, saga, version, self._schema))


class HoldsDefinitionsBlocking(AsksSagasBlocking):
    """Ask from threads; each method as in `HoldsDefinitions`."""

    def hold(self, saga: str, *, version: int | None = None, reason: str, by: str = "") -> Hold:
        """Keep sagas from beginning until they are released; see `HoldsDefinitions.hold`."""
        asked = Asked(saga, version, reason, by)
        return self._write(lambda c: hold_now(c, asked, self._schema))

    def release(self, saga: str, *, version: int | None = None, reason: str, by: str = "") -> Sequence[Hold]:
        """Let sagas begin again; see `HoldsDefinitions.release`."""
        asked, after = Asked(saga, version, reason, by), None
        released = self._write(lambda c: holds.release(c, asked, datetime.now(UTC), self._schema))
        while (after := self._write(lambda c, after=after: _wake(c, asked, after, self._schema))) is not None:  # type: ignore[misc] # mypy knows no lambda with a default
            pass
        if not released:
            raise self._read(lambda c: not_held(c, asked, self._schema))
        return released

    def holds(self) -> Sequence[Hold]:
        """What is held now; see `HoldsDefinitions.holds`."""
        return self._read(lambda c: holds.held(c, self._schema))

    def not_begun(self, saga: str, *, version: int | None = None) -> int:
        """Count sagas that have not begun; see `HoldsDefinitions.not_begun`."""
        return self._read(lambda c: holds.waiting(c, saga, version, self._schema))


def hold_now(connection: Connection, asked: Asked, schema: str | None) -> Hold:
    """Hold it, in the caller's transaction.

    Raises:
        HoldRefused: just that is held already.
    """
    new = holds.hold(connection, asked, datetime.now(UTC), schema)
    if new is not None:
        return new
    standing = next(
        one for one in holds.held(connection, schema) if (one.saga, one.version) == (asked.saga, asked.version)
    )
    raise HoldRefused(f"{standing.which} is held already, since {told(standing)}")


async def wake_all(write: Writes, asked: Asked, schema: str | None) -> None:
    """Wake what waits for a release, some in each transaction; again and in vain does no harm."""
    after = None
    while (after := await write(lambda c, after=after: _wake(c, asked, after, schema))) is not None:  # type: ignore[misc] # mypy knows no lambda with a default
        pass


def _wake(connection: Connection, asked: Asked, after: Place, schema: str | None) -> Place:
    which = (asked.saga, asked.version)
    return holds.wake_new(connection, which, datetime.now(UTC), after, _AT_ONCE, schema)


def not_held(connection: Connection, asked: Asked, schema: str | None) -> HoldRefused:
    """Why a release is refused. Reads only."""
    held = ", ".join(one.which for one in holds.held(connection, schema)) or "nothing"
    return HoldRefused(f"{named(asked.saga, asked.version)} is not held, so it cannot be released. Held: {held}")


def told(hold: Hold) -> str:
    """Since when, by whom and why, in words."""
    return f"{instant(hold.held_at)} by {hold.by or 'an operator'}: {hold.reason}"
