"""Sagas that really ran are archived, deleted and erased, on each database, whatever is killed in between."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging import failpoints
from messaging.memory import MemoryTransport
from orchestrator import BlockingSagaClient, SagaClient, SagaStatus, UnknownSaga
from orchestrator.app import running
from orchestrator.archive import FileArchive
from orchestrator.bulk import BulkOutcome
from orchestrator.errors import SagaErased, SagaPurged
from orchestrator.instance import StepKey
from orchestrator.purging import Purger
from orchestrator.retention import TERMINAL, Retention
from orchestrator.settings import OrchestratorSettings
from orchestrator.signals import ReplyReceived
from orchestrator.sql import SqlStore
from orchestrator.sql.tables import metadata
from orchestrator.transitions import decide
from tests.conformance.bookings import BookTrip, Card, Trip, app, travel

WAIT = timedelta(seconds=40)
AT_ONCE = Retention(dict.fromkeys(TERMINAL, timedelta(0)))


@dataclass(frozen=True)
class Travelled:
    """Two trips that are over: one went well, with a child and items; one was refused with a person's name."""

    url: str
    engine: AsyncEngine
    well: UUID
    refused: UUID

    @property
    def client(self) -> SagaClient:
        return SagaClient(self.engine)

    async def stored(self) -> str:
        """All that the tables of sagas hold, as one text; but for events that no saga took, which belong to none."""
        taken = {"saga_event": " WHERE consumed_by IS NOT NULL"}
        async with self.engine.connect() as connection:
            queries = [text(f"SELECT * FROM {name}{taken.get(name, '')}") for name in metadata.tables]
            return repr([(await connection.execute(query)).all() for query in queries])

    async def sagas(self) -> set[str]:
        async with self.engine.connect() as connection:
            return {str(one) for one in (await connection.execute(text("SELECT id FROM saga_instance"))).scalars()}

    async def purge(self, archive: FileArchive | None = None) -> int:
        store = SqlStore(self.engine, runs_engine=False)
        async with aclosing(Purger(store, AT_ONCE, archive=archive, batch=1, pause=_no_pause).run()) as purged:
            return sum([one.sagas.total() async for one in purged])


async def _no_pause(_: float) -> None: ...


@pytest.fixture
async def travelled(url: str) -> AsyncIterator[Travelled]:
    engine = create_async_engine(url)
    client = SagaClient(engine)
    settings = OrchestratorSettings.model_validate({"database_url": url, "poll_seconds": 0.02})
    async with running(app, travel, settings=settings, transport=MemoryTransport()):
        ids = [
            (await client.start(BookTrip, Trip(number=ends, ends=ends, card=Card(holder="Ann Example")), key=ends)).id
            for ends in ("well", "refused")
        ]
        ended = [(await client.wait(one, timeout=WAIT)).status for one in ids]
    assert ended == [SagaStatus.COMPLETED, SagaStatus.COMPENSATED]
    yield Travelled(url, engine, *ids)
    await engine.dispose()


def lines(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


async def test_killed_at_any_line_of_a_purge_each_saga_is_archived_before_it_is_gone(
    travelled: Travelled, tmp_path: Path
) -> None:
    archive = FileArchive(tmp_path / "archive", app.registry)
    before = await travelled.sagas()
    assert len(before) == 3, "one has a child"

    def killed_at(name: str) -> Any:
        def reached(place: str) -> None:
            if place == name:
                raise KeyboardInterrupt

        return failpoints.watched(reached)

    for place in ("purge.archived", "purge.deleted", "purge.committed"):
        with killed_at(place), pytest.raises(KeyboardInterrupt):
            await travelled.purge(archive)
        kept = {one["id"] for one in lines(archive.folder)}
        assert before <= kept | await travelled.sagas()
    await travelled.purge(archive)

    archived = lines(archive.folder)
    assert {one["id"] for one in archived} == before and len(archived) > len(before), "some twice, none lost"
    assert await travelled.sagas() == set()
    told = json.dumps(archived)
    assert "Example" not in told and "redacted-1" in told
    [well, *_] = [one for one in archived if one["id"] == str(travelled.well)]
    assert (well["business_key"], well["state"]["seat"], well["ended_at"] > well["started_at"]) == ("well", "12A", True)
    assert {"BookingFlight", "BookingMeal", "Insuring"} <= {one["step"].split("/")[-1] for one in well["steps"]}
    assert [(one["cause"], one["state"]["seat"]) for one in well["states"]][:2] == [("start", ""), ("on_reply", "12A")]
    assert next(one["parent_id"] for one in archived if one["root_id"]) == str(travelled.well)


async def test_nothing_is_deleted_that_could_not_be_archived(travelled: Travelled, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("no directory")
    with pytest.raises(OSError, match="archive"):
        await travelled.purge(FileArchive(tmp_path / "archive", app.registry))
    assert len(await travelled.sagas()) == 3


async def test_a_client_is_told_what_became_of_a_saga_that_is_gone(travelled: Travelled) -> None:
    assert await travelled.purge() == 3

    again = await travelled.client.start(BookTrip, Trip(number="well", card=Card(holder="Bob")), key="well")
    assert (again.id, again.created) == (travelled.well, False)
    for asked in (travelled.client.get(again.id), travelled.client.state(BookTrip, again.id)):
        with pytest.raises(SagaPurged, match="key 'well'\\) ended as completed and was deleted") as gone:
            await asked
        assert gone.value.ended_as == "completed"
    with pytest.raises(UnknownSaga):
        await travelled.client.wait(again.id, timeout=WAIT)
    with pytest.raises(UnknownSaga, match="no saga has the id"):
        await travelled.client.get(uuid4())


async def test_what_a_saga_knew_is_erased_everywhere_and_the_rest_stays(travelled: Travelled) -> None:
    assert "Ann Example" in await travelled.stored() and "12A" in await travelled.stored()
    ids = [travelled.well, travelled.refused, uuid4()]

    erased = [one async for one in travelled.client.erase(ids, reason="case 118", by="dana")]

    assert [one.outcome for one in erased] == [BulkOutcome.DONE, BulkOutcome.DONE, BulkOutcome.UNKNOWN]
    stored = await travelled.stored()
    assert "Ann Example" not in stored and "12A" not in stored and "P-1" not in stored
    row = await travelled.client.get(travelled.refused)
    assert (row.status, row.business_key, row.failed_step) == (SagaStatus.COMPENSATED, "refused", "BookingHotel")
    assert stored.count("case 118") == 3, "with the child"
    with pytest.raises(SagaErased):
        await travelled.client.state(BookTrip, travelled.well)


async def test_what_comes_late_for_an_erased_saga_is_noted_as_ever(travelled: Travelled) -> None:
    async for _ in travelled.client.erase([travelled.well], reason="case 118"):
        pass
    store = SqlStore(travelled.engine, runs_engine=False)
    async with store.transaction() as tx:
        saga = (await tx.lock([travelled.well])).sagas[travelled.well]
    late = ReplyReceived(StepKey("BookingHotel"), 1, 1, "success", "{}")
    decided = decide(BookTrip(), saga, late, now=saga.updated_at)
    assert [note.kind for note in decided.notes] == ["late_reply"]


async def test_what_has_not_ended_is_not_erased_nor_a_child_by_itself(url: str, travelled: Travelled) -> None:
    alive = await travelled.client.start(BookTrip, Trip(number="later", card=Card(holder="Bob")))
    async with travelled.engine.connect() as connection:
        query = text("SELECT id FROM saga_instance WHERE parent_id IS NOT NULL")
        child = UUID(str((await connection.execute(query)).scalar_one()))
    drivers = {"sqlite+aiosqlite": "sqlite+pysqlite", "postgresql+asyncpg": "postgresql+psycopg"}
    made = make_url(url)
    engine = create_engine(made.set(drivername=drivers[made.drivername]))

    refused = await asyncio.to_thread(
        lambda: list(BlockingSagaClient(engine).erase([alive.id, child], reason="case 118"))
    )

    engine.dispose()
    assert [one.outcome for one in refused] == [BulkOutcome.REFUSED, BulkOutcome.REFUSED]
    assert "it is running, and only what has ended" in str(refused[0].error)
    assert f"it is a child of saga {travelled.well}" in str(refused[1].error)
    assert "Bob" in await travelled.stored()


async def test_a_service_deletes_by_itself_what_the_settings_say(url: str, travelled: Travelled) -> None:
    settings = OrchestratorSettings.model_validate(
        {
            "database_url": url,
            "poll_seconds": 0.02,
            "purge_every_seconds": 0.05,
            "keep_completed_days": 1e-9,
        }
    )
    async with running(app, travel, settings=settings, transport=MemoryTransport()), asyncio.timeout(40):
        while len(await travelled.sagas()) != 1:  # noqa: ASYNC110 - another's doing
            await asyncio.sleep(0.02)
    assert await travelled.sagas() == {str(travelled.refused)}
