"""What became of each step, as its graph says it."""

from __future__ import annotations

import pytest

from orchestrator.graph import Happened
from orchestrator.instance import Direction, StepKey, StepRecord, StepStatus
from orchestrator.status import timeline_of
from orchestrator.web.happened import happened
from tests.conformance.stores import NOON, SECOND, command, wait
from tests.unit.web.conftest import Site

DONE = command(status=StepStatus.SUCCEEDED, send_after=None, ended_at=NOON + SECOND)
UNKNOWN = command(status=StepStatus.UNKNOWN, send_after=None, ended_at=NOON + SECOND)
UNDO = StepKey("ReservingCredit", Direction.COMPENSATION)
UNDONE = command(key=UNDO, seq=3, status=StepStatus.SUCCEEDED, send_after=None, ended_at=NOON + SECOND)


@pytest.mark.parametrize(
    ("records", "kind", "told"),
    [
        ([DONE], "forward", "✓ done"),
        ([command()], "open", "… under way"),
        ([UNKNOWN], "unknown", "? unknown"),
        ([UNKNOWN, UNDONE], "undo", "↩ undone"),
        ([DONE, command(key=UNDO, seq=3)], "open", "… being undone"),
        ([DONE, command(key=UNDO, seq=3, status=StepStatus.REFUSED, send_after=None)], "failed", "✗ undo failed"),
    ],
)
async def test_the_undo_of_a_step_decides_what_became_of_it(
    site: Site, records: list[StepRecord], kind: str, told: str
) -> None:
    saga = await site.saga(*records, wait(seq=2))
    async with site.store.engine.connect() as connection:
        steps = happened(await connection.run_sync(timeline_of, saga.id))

    assert steps == {"ReservingCredit": Happened(kind, told), "AwaitingPayment": Happened("open", "… under way")}
