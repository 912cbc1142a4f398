"""Sagas that keep their states: each as it was, in the transaction that changed it, on every store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import Engine, event, text
from sqlalchemy.ext.asyncio import AsyncSession

from messaging.envelope import FAILURE
from messaging.messages import Command, Event, Failure, Reply
from orchestrator import ForEach, ItemStep, LocalStep, Parallel, Saga, Step, SubSaga, WaitForEvent
from orchestrator.instance import Direction, SagaStatus, StepKey
from orchestrator.local_runner import Due
from orchestrator.registry import pin_of
from orchestrator.retention import EndedTree
from orchestrator.signal_codec import signal_to_row
from orchestrator.signals import Decision, KeptState, UpgradeRequested
from orchestrator.sql import SqlStore
from orchestrator.start import new_instance
from orchestrator.store import NewSignal, SagaStore
from orchestrator.version_keeper import VersionKeeper
from orchestrator.views import states_of
from orchestrator.workers import this_process
from tests.conformance.replicas import Replica
from tests.conformance.stores import NOON, MovableClock, make_store, opened, sqlite_url


class Order(BaseModel):
    card: str = Field(default="4929", repr=False)
    log: list[str] = []
    lines: list[str] = []


class Done(Reply): ...


class Do(Command[Done]): ...


class Paid(Event): ...


class Charging(Step[Order, Done]):
    participant = "bank"

    def command(self, state: Order) -> Do:
        return Do()

    def on_reply(self, state: Order, reply: Done) -> None:
        state.log.append("charged")

    def on_failure(self, state: Order, failure: Failure) -> None:
        state.log.append("refused")

    def compensation(self, state: Order) -> Do:
        return Do()


class Weighing(Step[Order, Done]):
    participant = "warehouse"
    nothing_to_undo = True

    def command(self, state: Order) -> Do:
        return Do()

    def on_reply(self, state: Order, reply: Done) -> None:
        state.log = list(state.log)


class Packing(ItemStep[Order, str, Done]):
    participant = "warehouse"

    def command(self, state: Order, item: str) -> Do:
        return Do()

    def on_reply(self, state: Order, item: str, reply: Done) -> None:
        state.log.append(f"packed {item}")

    def compensation(self, state: Order, item: str) -> Do:
        return Do()


class PackingAll(ForEach[Order, str]):
    steps = (Packing(),)

    def items(self, state: Order) -> list[str]:
        return state.lines

    def item_key(self, item: str) -> str:
        return item


class Booking(LocalStep[Order]):
    async def run(self, state: Order, session: AsyncSession) -> None:
        state.log.append("booked")

    async def undo(self, state: Order, session: AsyncSession) -> None:
        state.log.append("booked back")


class Waiting(WaitForEvent[Order, Paid]):
    timeout = timedelta(minutes=1)

    def on_expired(self, state: Order) -> None:
        state.log.append("too late")


class Buy(Saga[Order]):
    keep_states = True
    steps = (Parallel(Charging(), Weighing()), PackingAll())


class Keep(Saga[Order]):
    keep_states = True
    steps = (Booking(), Waiting())


class Forget(Saga[Order]):
    steps = (Charging(),)


class Shopping(SubSaga[Order, Order]):
    saga = Buy

    def child_state(self, state: Order) -> Order:
        return state


class BuyForSomebody(Saga[Order]):
    steps = (Shopping(),)


class Renamed(BaseModel):
    log: list[str] = []
    note: str = "new"


class ChargingAgain(Step[Renamed, Done]):
    name = "Charging"
    participant = "bank"

    def command(self, state: Renamed) -> Do:
        return Do()

    def compensation(self, state: Renamed) -> Do:
        return Do()


class ForgetAgain(Saga[Renamed]):
    """The next version, which keeps states."""

    name = "forget"
    version = 2
    keep_states = True
    steps = (ChargingAgain(),)


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "psycopg"])
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[Any]:
    async with opened(_made(request, tmp_path, clock)) as store:
        yield store


@pytest.fixture(params=["sqlite", "postgresql"])
async def sql_store(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> AsyncIterator[Any]:
    async with opened(_made(request, tmp_path, clock)) as store:
        yield store


def _made(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> SagaStore:
    where = ""
    if request.param == "sqlite":
        where = sqlite_url(tmp_path)
    elif request.param != "memory":
        where = request.getfixturevalue("migrated_database")
    return make_store(request.param, where, clock)


async def kept_with_times(store: Any, saga_id: UUID) -> list[tuple[KeptState, datetime]]:
    """What is kept of a saga, in order."""
    if not isinstance(store, SqlStore):
        return [row for place, row in sorted(store.tables.states.items()) if place[0] == saga_id]
    async with store.engine.connect() as connection:
        rows = await connection.run_sync(states_of, saga_id)
    return [
        (KeptState(StepKey(row.step, Direction(row.direction), row.branch), row.cause, row.state, row.version), row.at)
        for row in rows
    ]


async def kept(store: Any, saga_id: UUID) -> list[KeptState]:
    return [one for one, _ in await kept_with_times(store, saga_id)]


def told(states: list[KeptState]) -> list[tuple[str, str, list[str]]]:
    return [(one.key.label, one.cause, json.loads(one.state)["log"]) for one in states]


@contextmanager
def written(store: Any) -> Iterator[list[str]]:
    """The statements that write states."""
    mine: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO saga_state " in statement:
            mine.append(statement)

    event.listen(Engine, "before_cursor_execute", note)  # of all engines: SQLite's writer has one of its own
    yield mine
    event.remove(Engine, "before_cursor_execute", note)
    if not isinstance(store, SqlStore):
        assert mine == []


async def test_the_state_is_kept_as_it_began_and_after_each_step_that_changed_it(store: Any) -> None:
    replica = Replica(store, Buy)
    saga_id = await replica.start(Buy, Order(lines=["a", "b"]))
    assert told(await kept(store, saga_id)) == [("", "start", [])], "before anything has happened"

    await replica.answer(saga_id, Weighing)
    await replica.answer(saga_id, Charging)
    for row in (await replica.saga(saga_id)).steps.values():
        if row.key.branch == "b":
            await replica.reply(row.command_id)  # type: ignore[arg-type] # it is out

    assert told(await kept(store, saga_id)) == [
        ("", "start", []),
        ("Charging", "on_reply", ["charged"]),
        ("Packing/b", "on_reply", ["charged", "packed b"]),
    ]
    last = (await kept(store, saga_id))[-1]
    assert last.state == (await replica.saga(saga_id)).state


async def test_what_one_transaction_changes_twice_is_kept_twice_in_order(store: Any) -> None:
    replica = Replica(store, Buy)
    saga_id = await replica.start(Buy, Order(lines=["a", "b"]))
    await replica.answer(saga_id, Weighing)
    await replica.answer(saga_id, Charging)
    out = {key.branch: row.command_id for key, row in (await replica.saga(saga_id)).steps.items() if key.branch}

    await replica.reply(out["b"], out["a"])  # type: ignore[arg-type] # they are out

    assert [label for label, _, _ in told(await kept(store, saga_id))] == ["", "Charging", "Packing/b", "Packing/a"]


async def test_a_refusal_is_kept_and_an_undo_that_changes_nothing_is_not(store: Any) -> None:
    replica = Replica(store, Buy)
    saga_id = await replica.start(Buy, Order())
    await replica.answer(saga_id, Weighing)
    await replica.answer(saga_id, Charging, FAILURE)

    assert (await replica.saga(saga_id)).status is SagaStatus.COMPENSATED
    assert told(await kept(store, saga_id)) == [("", "start", []), ("Charging", "on_failure", ["refused"])]


async def test_what_happens_later_is_kept_with_its_time_and_an_undo_with_its_direction(
    store: Any, clock: MovableClock
) -> None:
    replica = Replica(store, Keep)
    due: list[Due] = []
    replica.engine.local_due = due.extend
    saga_id = await replica.start(Keep, Order())
    await replica.engine.run_local(*due.pop())
    clock.move(2 * Waiting.timeout)
    await replica.settle()
    await replica.engine.run_local(*due.pop())

    states = await kept_with_times(store, saga_id)

    assert [(one.key.step, one.key.direction.value, one.cause, at - NOON) for one, at in states] == [
        ("", "action", "start", timedelta(0)),
        ("Booking", "action", "run", timedelta(0)),
        ("Waiting", "action", "on_expired", 2 * Waiting.timeout),
        ("Booking", "compensation", "undo", 2 * Waiting.timeout),
    ]


async def test_a_child_keeps_its_states_whatever_its_parent_does(store: Any) -> None:
    replica = Replica(store, BuyForSomebody)
    saga_id = await replica.start(BuyForSomebody, Order())
    [child] = [UUID(record.awaited_key) for record in (await replica.saga(saga_id)).steps.values()]

    assert told(await kept(store, child)) == [("", "start", [])]
    assert await kept(store, saga_id) == []


async def test_a_version_that_keeps_states_begins_with_what_the_upgrade_makes_of_it(store: Any) -> None:
    replica = Replica(store, Forget, ForgetAgain)
    saga_id = await replica.start(Forget, Order())
    pin = pin_of(ForgetAgain)
    row = signal_to_row(UpgradeRequested(pin.version, pin.fingerprint, "new code", "ann"))
    assert row is not None
    async with store.transaction() as tx:
        await tx.add_signals([NewSignal(saga_id, *row)])
    keeper = VersionKeeper(replica.engine, store, replica.registry, this_process(replica.registry.pins))

    await keeper.upgrade()

    [one] = await kept(store, saga_id)
    assert (one.key.step, one.cause, one.version) == ("", "upgrade", 2)
    assert json.loads(one.state) == {"log": [], "note": "new"}


async def test_sagas_that_do_not_ask_for_it_pay_nothing(store: Any) -> None:
    replica = Replica(store, Forget)
    with written(store) as statements:
        saga_id = await replica.start(Forget, Order())
        await replica.answer(saga_id, Charging)
    assert (await kept(store, saga_id), statements) == ([], [])


async def test_a_batch_keeps_all_its_states_in_one_statement(store: Any) -> None:
    replica = Replica(store, Buy, Forget)
    keeping = [await replica.start(Buy, Order()) for _ in range(3)]
    other = await replica.start(Forget, Order())
    commands = [await replica.command(saga_id, Charging) for saga_id in (*keeping, other)]

    with written(store) as statements:
        await replica.reply(*commands)

    assert [len(await kept(store, saga_id)) for saga_id in keeping] == [2, 2, 2]
    assert await kept(store, other) == []
    assert len(statements) == isinstance(store, SqlStore)


async def test_a_start_that_writes_nothing_keeps_nothing(store: Any) -> None:
    first, second = (new_instance(Buy, Order(log=[name]), "42", "", NOON) for name in ("first", "second"))
    third = new_instance(Buy, Order(), "43", "", NOON)
    async with store.transaction() as tx:
        await tx.start(first)
        await tx.start(first)
        assert await tx.start(second) == (first.id, False)
    with suppress(ZeroDivisionError):
        async with store.transaction() as tx:
            await tx.start(third)
            raise ZeroDivisionError
    assert [told(await kept(store, saga.id)) for saga in (first, second, third)] == [[("", "start", ["first"])], [], []]


async def test_a_transaction_that_is_rolled_back_keeps_nothing(store: Any) -> None:
    replica = Replica(store, Buy)
    saga_id = await replica.start(Buy, Order())
    with suppress(ZeroDivisionError):
        async with store.transaction() as tx:
            saga = (await tx.lock([saga_id])).sagas[saga_id]
            changed = KeptState(StepKey("Charging"), "on_reply", "{}", 1)
            await tx.save([Decision(replace(saga, state="{}"), states=(changed,))])
            raise ZeroDivisionError
    assert told(await kept(store, saga_id)) == [("", "start", [])]


async def test_states_go_with_their_saga(store: Any) -> None:
    replica = Replica(store, Buy)
    gone, stays = await replica.start(Buy, Order()), await replica.start(Buy, Order())
    async with store.transaction() as tx:
        saga = (await tx.lock([gone])).sagas[gone]
        await tx.purge([EndedTree(SagaStatus.COMPLETED, NOON, {gone: saga.pin}, None)])

    assert (await kept(store, gone), len(await kept(store, stays))) == ([], 1)


async def test_states_are_read_from_any_place_on(sql_store: Any) -> None:
    replica = Replica(sql_store, Buy)
    saga_id = await replica.start(Buy, Order(lines=["a", "b"]))
    await replica.answer(saga_id, Weighing)
    await replica.answer(saga_id, Charging)
    out = {key.branch: row.command_id for key, row in (await replica.saga(saga_id)).steps.items() if key.branch}
    await replica.reply(out["a"], out["b"])  # type: ignore[arg-type] # they are out

    async with sql_store.engine.connect() as connection:
        rows = await connection.run_sync(states_of, saga_id)
        pages = [
            await connection.run_sync(lambda c, row=row: states_of(c, saga_id, since=(row.revision, row.position)))
            for row in rows
        ]
        [first] = await connection.run_sync(lambda c: states_of(c, saga_id, limit=1))
        names = await connection.execute(text("SELECT DISTINCT saga FROM saga_state_history"))

    assert (len(rows), [*map(len, pages)], first) == (4, [4, 3, 2, 1], rows[0])
    assert names.scalars().all() == ["buy"]
