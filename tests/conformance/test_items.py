"""The items of a `ForEach` on every store: few rows are read for a reply, however many items there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import event

from messaging.envelope import FAILURE, SUCCESS
from messaging.messages import Command, Reply
from orchestrator import ForEach, ItemStep, Saga, SagaStatus
from orchestrator.instance import Direction, SagaInstance, StepKey, StepStatus
from orchestrator.signals import DeadlinePassed, Decision, Incoming, ReplyReceived
from orchestrator.start import new_instance
from orchestrator.transitions import decide
from tests.conformance.stores import PSYCOPG, MovableClock, load, make_store, opened, sqlite_url


class Parcels(BaseModel):
    count: int
    packed: int = 0


class Packed(Reply): ...


class Pack(Command[Packed]):
    number: int


class Unpack(Command[Packed]):
    number: int


class Packing(ItemStep[Parcels, int, Packed]):
    participant = "warehouse"

    def command(self, state: Parcels, item: int) -> Pack:
        return Pack(number=item)

    def on_reply(self, state: Parcels, item: int, reply: Packed) -> None:
        state.packed += 1

    def compensation(self, state: Parcels, item: int) -> Unpack:
        return Unpack(number=item)


class PackingAll(ForEach[Parcels, int]):
    concurrency = 5
    compensation_concurrency = 5
    steps = (Packing(),)

    def items(self, state: Parcels) -> range:
        return range(state.count)

    def item_key(self, item: int) -> str:
        return f"parcel {item}"


class PackParcels(Saga[Parcels]):
    steps = (PackingAll(),)


class Warehouse:
    """One saga on a store; each decision is a transaction of its own, on what was loaded for it."""

    def __init__(self, store: Any, clock: MovableClock) -> None:
        self.store, self.clock, self.saga = store, clock, PackParcels()
        self.most_rows = self.decisions = 0

    async def start(self, count: int) -> UUID:
        saga = new_instance(PackParcels, Parcels(count=count), None, "", self.clock.now())
        async with self.store.transaction() as tx:
            await tx.start(saga)
        await self.tell(saga.id, DeadlinePassed())
        return saga.id

    async def tell(self, saga_id: UUID, incoming: Incoming) -> Decision:
        async with self.store.transaction() as tx:
            locked = await tx.lock([saga_id])
            instance = locked.sagas[saga_id]
            self.most_rows = max(self.most_rows, len(instance.steps))
            decision = decide(self.saga, instance, incoming, now=locked.now)
            await tx.save([decision])
            self.decisions += 1
        if decision.instance.wake_at is not None and decision.instance.wake_at <= self.clock.now():
            await self.tell(saga_id, DeadlinePassed())
        return decision

    async def answer_all(self, saga_id: UUID, *, refused: str = "") -> SagaInstance:
        while (saga := await load(self.store, saga_id)).current_step:
            for key, record in saga.steps.items():
                if record.status is StepStatus.OUTSTANDING:
                    outcome = FAILURE if (key.branch, key.direction) == (refused, Direction.ACTION) else SUCCESS
                    await self.tell(saga_id, ReplyReceived(key, record.round, record.attempt, outcome, "{}"))
        return saga


@pytest.fixture(params=["memory", "sqlite", "postgresql", PSYCOPG])
async def warehouse(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Warehouse]:
    where, clock = "", MovableClock()
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    async with opened(make_store(request.param, where, clock)) as store:
        yield Warehouse(store, clock)


@contextmanager
def counted(store: Any) -> Iterator[Counter[str]]:
    """Count the statements by their first word, where there are statements."""
    seen: Counter[str] = Counter()

    def count(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen[statement.split(None, 1)[0]] += 1

    engine = getattr(store, "engine", None)
    if engine is not None:
        event.listen(engine.sync_engine, "before_cursor_execute", count)
    yield seen
    if engine is not None:
        event.remove(engine.sync_engine, "before_cursor_execute", count)


async def test_items_go_forward_a_few_at_a_time_and_few_rows_are_read(warehouse: Warehouse) -> None:
    saga_id = await warehouse.start(60)

    with counted(warehouse.store) as statements:
        ended = await warehouse.answer_all(saga_id)

    assert ended.status is SagaStatus.COMPLETED
    assert Parcels.model_validate_json(ended.state).packed == 60
    assert warehouse.most_rows <= 1 + PackingAll.concurrency
    # Reading: the instant, the saga, its rows, items and their rows.
    assert statements["SELECT"] <= 5 * (warehouse.decisions + 60)


async def test_all_that_was_done_is_undone_a_few_at_a_time(warehouse: Warehouse) -> None:
    saga_id = await warehouse.start(20)

    ended = await warehouse.answer_all(saga_id, refused="parcel%2011")

    assert ended.status is SagaStatus.COMPENSATED
    assert warehouse.most_rows <= 2 + 4 * PackingAll.concurrency
    assert ended.steps[StepKey("PackingAll", Direction.COMPENSATION)].status is StepStatus.SUCCEEDED
    if hasattr(warehouse.store, "saga"):
        rows = warehouse.store.saga(saga_id).steps
        undone = {key.branch for key in rows if key.direction is Direction.COMPENSATION and key.branch}
        done = {key.branch for key, row in rows.items() if key.branch and row.status is StepStatus.SUCCEEDED}
        assert undone == done and "parcel%2011" not in undone


async def test_sagas_without_items_are_read_with_no_more_statements(warehouse: Warehouse) -> None:
    saga_id = await warehouse.start(0)

    with counted(warehouse.store) as statements:
        await load(warehouse.store, saga_id)

    assert statements["SELECT"] <= 2


async def test_what_is_loaded_is_what_was_frozen(warehouse: Warehouse) -> None:
    saga = await load(warehouse.store, await warehouse.start(100))

    assert len(saga.items) == 10
    assert saga.items["PackingAll", "parcel%207"].text == "7"
    assert {key.branch for key in saga.steps if key.branch} == {f"parcel%20{n}" for n in range(5)}
