"""`saga purge`, killed with SIGKILL after it has archived: nothing is lost, and another one does it again."""

from __future__ import annotations

import asyncio
import gzip
import json
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

from orchestrator.archive import FileArchive
from orchestrator.instance import SagaStatus
from orchestrator.purging import Purger
from orchestrator.registry import pin_of
from orchestrator.retention import Retention
from orchestrator.sql import SqlStore
from orchestrator.sql.migrate import upgrade
from tests.conformance.stores import new_saga
from tests.support.programs import Programs
from tests.unit.cli.walls import PaintWallSaga, app

LONG_AGO = datetime.now(UTC) - timedelta(days=9)
PURGE = ("purge", "--older-than", "1d", "--yes", "--batch", "2", "--app", "tests.unit.cli.walls:app")


async def _ended(url: str, number: int) -> list[str]:
    store = SqlStore(url)
    sagas = [
        new_saga(
            pin=pin_of(PaintWallSaga),
            status=SagaStatus.COMPLETED,
            state='{"name": "north", "ends": "well"}',
            wake_at=None,
            ended_at=LONG_AGO,
        )
        for _ in range(number)
    ]
    async with store.transaction() as tx:
        for saga in sagas:
            await tx.start(saga)
    await store.close()
    return [str(saga.id) for saga in sagas]


async def _purged(url: str, folder: Path) -> int:
    store = SqlStore(url)
    purger = Purger(
        store, Retention({SagaStatus.COMPLETED: timedelta(days=1)}), archive=FileArchive(folder, app.registry)
    )
    deleted = sum([one.sagas.total() async for one in purger.run()])
    await store.close()
    return deleted


def _archived(folder: Path) -> list[str]:
    files = folder.glob("*.jsonl.gz")
    return [json.loads(line)["id"] for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def test_a_purge_that_is_killed_loses_nothing_and_is_done_again(tmp_path: Path) -> None:
    url, folder = f"sqlite+aiosqlite:///{tmp_path / 'saga.db'}", tmp_path / "archive"
    upgrade(url)
    ids = asyncio.run(_ended(url, 6))
    with Programs({"ORCHESTRATOR_DATABASE_URL": url}) as programs:
        killed = programs.saga(*PURGE, "--archive", str(folder), ORCHESTRATOR_FAILPOINT="purge.deleted:2")
        assert killed.result() == -signal.SIGKILL
        assert sorted(_archived(folder)) == sorted(set(_archived(folder))) and len(_archived(folder)) == 4

    assert asyncio.run(_purged(url, folder)) == 4, "the second batch was rolled back"
    assert sorted(set(_archived(folder))) == sorted(ids) and len(_archived(folder)) == 8, "two of them twice"
