"""What the setting `hold_failing` switches on: a version whose sagas fail is held by the watchdog."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from orchestrator.store import SagaStore
from orchestrator.watchdog import Alarm

logger = logging.getLogger(__name__)

FAILING: Final = "failing"
"""The alarm's kind."""
BY: Final = "watchdog"


class HoldsFailing:
    """Holds the versions that the alarm is up about, as long as it is up.

    One that was released is left alone for as long as failures count: those from before it was mended do.

    Args:
        store: where they are held.
        window: the time in which sagas are counted that failed.
    """

    def __init__(self, store: SagaStore, window: timedelta) -> None:
        self._store, self._window = store, window

    async def __call__(self, raised: Sequence[Alarm]) -> None:
        """See to it that what fails is held."""
        for alarm in raised:
            if alarm.kind == FAILING:
                await self._hold(str(alarm.facts["saga"]), int(alarm.facts["version"]), alarm.text)

    async def _hold(self, saga: str, version: int, why: str) -> None:
        async with self._store.transaction() as tx:
            held = any(one.concerns(saga, version) for one in await tx.holds())
            if held or await tx.released_since(saga, version, await tx.now() - self._window):
                return
            await tx.hold(saga, version, reason=why, by=BY)
        logger.warning(
            "%s v%d is held: its sagas begin no more until it is released with: saga release %s --version %d",
            *(saga, version, saga, version),
        )
