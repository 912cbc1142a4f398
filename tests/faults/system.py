"""A whole shop of real processes over its own queues and databases: started, killed, and audited."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias
from uuid import UUID

import aio_pika
from sqlalchemy import NullPool, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from messaging.rabbitmq.topology import DELAY_STEPS
from orchestrator.ids import new_saga_id
from orchestrator.instance import SagaInstance, SagaStatus
from orchestrator.registry import pin_of
from orchestrator.sql.store import SqlStore
from tests.faults.shop import MAYBE_UNDONE, SERVICES, SURELY_UNDONE, UNDOABLE, Kind, OrderSaga, OrderState
from tests.support.processes import clean_up_done, leave_nothing_behind

ROOT = Path(__file__).resolve().parent.parent.parent
REPLIES, EVENTS = "orchestrator.main.replies", "orchestrator.main.events"
QUEUES = (REPLIES, EVENTS, *SERVICES)
PATIENCE = 150.0
EVERY_KIND = tuple(Kind)


async def eventually(condition: Callable[[], Awaitable[bool]], what: str, *, within: float = PATIENCE) -> None:
    """Wait until something holds, asking ever again."""
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        await asyncio.sleep(0.1)


class Child:
    """One process of the shop."""

    def __init__(self, role: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.role, self.process, self.log = role, process, log

    async def ready(self) -> None:
        """Wait until it serves, or has died."""

        async def serves() -> bool:
            return self.process.returncode is not None or " Running " in self.log.read_text()

        await eventually(serves, f"{self.role} runs; {self.tail()}")

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ended(self, *, within: float = PATIENCE) -> int:
        """Wait until it has ended; returns its exit status."""
        try:
            return await asyncio.wait_for(self.process.wait(), within)
        except TimeoutError:
            raise AssertionError(f"{self.role} still runs after {within:g} s; {self.tail()}") from None

    async def killed_itself(self) -> None:
        status = await self.ended()
        assert status == -signal.SIGKILL, f"{self.role} ended with {status}; {self.tail()}"

    async def kill(self) -> None:
        """SIGKILL, harmless when it has ended."""
        if self.alive:
            self.process.kill()
        await self.process.wait()

    def terminate(self) -> None:
        self.process.terminate()

    async def stop(self, *, within: float = PATIENCE) -> None:
        """SIGTERM, and see that it drains and ends well."""
        assert self.alive, f"{self.role} has ended with {self.process.returncode}; {self.tail()}"
        self.terminate()
        status = await self.ended(within=within)
        assert status == 0, f"{self.role} ended with {status}; {self.tail()}"

    def tail(self) -> str:
        """The last it said."""
        lines = self.log.read_text(errors="replace").splitlines()[-40:]
        return f"the end of {self.log}:\n" + "\n".join(lines)


@dataclass
class System:
    """A shop. Start its processes, place orders, break things, then ask whether all is as it must be."""

    broker_url: str
    prefix: str
    sagas_url: str
    shop_url: str
    directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    """More of the environment of all its processes."""
    children: list[Child] = field(default_factory=list)
    orders: dict[str, Kind] = field(default_factory=dict)
    saga_ids: dict[str, UUID] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._starting: list[asyncio.Task[Child]] = []
        self.sagas = _engine(self.sagas_url)
        self.shop = _engine(self.shop_url)

    # -- processes

    async def start(self, role: str, *, failpoint: str = "", **settings: str) -> Child:
        """Start a process and wait until it serves (or has died of its failpoint)."""
        child = await self.launch(role, failpoint=failpoint, **settings)
        await child.ready()
        return child

    async def launch(self, role: str, *, failpoint: str = "", **settings: str) -> Child:
        """Start a process; cancelled in the middle, it is known all the same, and killed with the others."""
        starting = asyncio.create_task(self._launch(role, failpoint, settings))
        self._starting.append(starting)
        return await asyncio.shield(starting)

    async def _launch(self, role: str, failpoint: str, settings: Mapping[str, str]) -> Child:
        log = self.directory / f"{role}-{next(self._numbers)}.log"
        environment = {
            "ORCHESTRATOR_DATABASE_URL": self.sagas_url,
            "ORCHESTRATOR_POLL_SECONDS": "0.05",
            "ORCHESTRATOR_SWEEP_SECONDS": "0.5",
            "ORCHESTRATOR_SEND_GRACE_SECONDS": "2",
            "ORCHESTRATOR_DRAIN_SECONDS": "10",
            "MESSAGING_BROKER_URL": self.broker_url,
            "MESSAGING_PREFIX": self.prefix,
            "SHOP_DATABASE_URL": self.shop_url,
            "SHOP_LOG": str(self.directory / "deliveries.jsonl"),
            "ORCHESTRATOR_FAILPOINT": failpoint,
            **self.settings,
            **settings,
        }
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "tests.faults.shop_process", role),
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        # For the case that the tests themselves are killed; the folder is one that does not exist.
        leave_nothing_behind(pid=process.pid, directory=log.with_suffix(".none"))
        child = Child(role, process, log)
        self.children.append(child)
        return child

    async def stop(self) -> None:
        """Stop what still runs, and see each drain in time."""
        await asyncio.gather(*(child.stop() for child in self.children if child.alive))

    async def kill(self) -> None:
        """Leave nothing behind."""
        await asyncio.gather(*self._starting, return_exceptions=True)
        for child in self.children:
            await child.kill()
            clean_up_done(pid=child.process.pid)
        await self.sagas.dispose()
        await self.shop.dispose()

    # -- orders

    async def place(self, kinds: Iterable[Kind] = EVERY_KIND) -> list[str]:
        """Start a saga for each, in one transaction."""
        placed: list[str] = []
        store = SqlStore(self.sagas_url, runs_engine=False)
        try:
            async with store.transaction() as tx:
                for kind in kinds:
                    order_id = f"order-{len(self.orders) + 1}"
                    state = OrderState(order_id=order_id, kind=kind).model_dump_json()
                    now = datetime.now(UTC)
                    pin = pin_of(OrderSaga)
                    saga = SagaInstance(
                        new_saga_id(), pin, SagaStatus.RUNNING, state, 0, now, now, now, business_key=order_id
                    )
                    assert (await tx.start(saga))[1]
                    self.orders[order_id], self.saga_ids[order_id] = kind, saga.id
                    placed.append(order_id)
        finally:
            await store.close()
        return placed

    async def all_ended(self, *, within: float = PATIENCE) -> None:
        """Wait until every saga has ended, and all that was to be sent is sent."""
        deadline = time.monotonic() + within
        while open_ends := await self._open_ends():
            if time.monotonic() > deadline:
                tails = "\n\n".join(child.tail() for child in self.children if child.alive)
                raise AssertionError(f"after {within:g} s: {open_ends}\n{await self._story()}\n{tails}")
            await asyncio.sleep(0.1)

    async def _open_ends(self) -> str:
        dead = [child.role for child in self.children if child.process.returncode not in (None, 0, -signal.SIGKILL)]
        assert not dead, f"{dead} ended by itself; {self.children[-1].tail()}"
        statuses = Counter(await self.column("SELECT status FROM saga_instance"))
        going = {s: n for s, n in statuses.items() if not SagaStatus(s).terminal}
        if going or sum(statuses.values()) < len(self.orders):
            return f"sagas are {dict(statuses)}"
        for engine, what in (
            (self.sagas, "SELECT count(*) FROM saga_step WHERE send_after IS NOT NULL"),
            (self.sagas, "SELECT count(*) FROM message_outbox"),
            (self.shop, "SELECT count(*) FROM message_outbox"),
            (self.sagas, "SELECT count(*) FROM saga_signal WHERE taken_at IS NULL"),
        ):
            (count,) = await self.column(what, engine)
            if count:
                return f"{count} rows by {what}"
        closed = await self.column("SELECT count(*) FROM ledger WHERE effect LIKE 'closed %'", self.shop)
        return "" if closed[0] >= len(self.orders) else f"{closed[0]} of {len(self.orders)} orders were closed"

    async def effects(self, effect: str = "%") -> int:
        """How much has happened so far."""
        (count,) = await self.column(f"SELECT count(*) FROM ledger WHERE effect LIKE '{effect}'", self.shop)
        return int(count)

    async def more_happened(self, than: int) -> None:
        """Wait until there are more effects than so many."""

        async def grown() -> bool:
            return await self.effects() > than

        await eventually(grown, f"more than {than} effects; {self.children[-1].tail()}")

    # -- the audit

    async def check(self, *, unmatched: bool = False) -> None:
        """Each order ended as its data say, with exactly the effects it should have.

        Args:
            unmatched: whether messages that fit no saga are to be expected.
        """
        problems: list[str] = []
        statuses = dict(await self.rows("SELECT business_key, status FROM saga_instance"))
        effects: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for ledger in (self.shop, self.sagas):
            for order_id, effect in await self.rows("SELECT order_id, effect FROM ledger", ledger):
                effects[order_id][effect] += 1
        for order_id, kind in self.orders.items():
            wanted = "completed" if kind.completes else "compensated"
            found = [_said(statuses.get(order_id), wanted), *_wrong_effects(kind, effects[order_id])]
            problems += [f"{order_id} ({kind.value}): {problem}" for problem in found if problem]
        problems += self._attempts_with_two_ids()
        if not unmatched:
            problems += [str(row) for row in await self.rows("SELECT reason, saga_id FROM saga_unmatched")]
        assert not problems, "\n".join(problems) + "\n" + await self._story()

    def _attempts_with_two_ids(self) -> list[str]:
        log = self.directory / "deliveries.jsonl"
        ids: defaultdict[tuple[str, int], set[str]] = defaultdict(set)
        attempts: defaultdict[str, set[tuple[str, int]]] = defaultdict(set)
        for line in log.read_text().splitlines() if log.exists() else ():
            seen = json.loads(line)
            attempt = (seen["key"], seen["attempt"])
            ids[attempt].add(seen["message_id"])
            attempts[seen["message_id"]].add(attempt)
        twice = [f"{attempt} went out as {found}" for attempt, found in ids.items() if len(found) > 1]
        return twice + [f"{one} means {found}" for one, found in attempts.items() if len(found) > 1]

    async def nothing_left_in_queues(self, *, dead_letters: int = 0) -> None:
        """With all processes stopped: no message remains, but for so many dead letters.

        A `get` is answered by the queue itself in its turn; the counts of a declaration lag behind.
        """
        left: dict[str, int] = {}
        connection = await aio_pika.connect(self.broker_url)
        async with connection:
            for name in [*QUEUES, *(f"{name}.dead" for name in QUEUES)]:
                found = await _contents(connection, self.prefix + name)
                if found:
                    left[name] = len(found)
        dead = sum(count for name, count in left.items() if name.endswith(".dead"))
        assert dead == dead_letters and len(left) <= bool(dead), f"left in queues: {left}"

    async def finished(self, *, within: float = PATIENCE) -> None:
        """The whole audit: all sagas end, the processes drain, nothing is lost, doubled or left over."""
        await self.all_ended(within=within)
        await self.stop()
        await self.check()
        await self.nothing_left_in_queues()

    async def _story(self) -> str:
        """What the database says of sagas that have not ended."""
        lines = [
            " ".join(map(str, row))
            for row in await self.rows(
                "SELECT i.business_key, i.status, i.wake_at, i.blocked_reason, s.step, s.direction, s.status, s.round, "
                "s.attempt, s.send_after, s.sent_at, s.deadline, s.send_error, s.error_text FROM saga_instance i "
                "LEFT JOIN saga_step s ON s.saga_id = i.id "
                "WHERE i.status NOT IN ('completed', 'compensated') ORDER BY i.business_key, s.seq"
            )
        ]
        return "\n".join(lines[:60])

    async def rows(self, query: str, engine: AsyncEngine | None = None) -> Sequence[Any]:
        async with (engine or self.sagas).connect() as connection:
            return (await connection.execute(text(query))).all()

    async def column(self, query: str, engine: AsyncEngine | None = None) -> list[Any]:
        return [row[0] for row in await self.rows(query, engine)]


def _engine(url: str) -> AsyncEngine:
    return create_async_engine(url, poolclass=NullPool)


def _said(found: str | None, wanted: str) -> str:
    return "" if found == wanted else f"it is {found}, not {wanted}"


def _wrong_effects(kind: Kind, found: Counter[str]) -> list[str]:
    """Compare a ledger with what the order's kind says."""
    wanted: Counter[str] = Counter()
    if kind.completes:
        wanted.update([*UNDOABLE, "charge", "ship", "closed completed"])
    else:
        wanted["closed compensated"] = 1
        for effect in SURELY_UNDONE[kind]:
            wanted.update([effect, f"undo {effect}"])
        for effect in MAYBE_UNDONE.get(kind, ()):
            if found[effect]:
                wanted.update([effect, f"undo {effect}"])
    return [
        f"{effect!r} happened {found[effect]} times, not {wanted[effect]}"
        for effect in sorted({*wanted, *found})
        if found[effect] != wanted[effect]
    ]


async def _contents(connection: aio_pika.abc.AbstractConnection, name: str) -> list[bytes]:
    async with connection.channel() as channel:
        queue = await channel.get_queue(name, ensure=True)
        found: list[bytes] = []
        while (message := await queue.get(fail=False)) is not None:
            found.append(message.body)
        return found  # unacknowledged: they go back


def names_on_the_broker(prefix: str) -> Iterable[str]:
    """Every queue that a shop may declare."""
    for queue in QUEUES:
        yield f"{prefix}{queue}"
        yield f"{prefix}{queue}.dead"
        yield from (f"{prefix}{queue}.delay.{round(s.total_seconds() * 1000)}" for s in DELAY_STEPS[:6])


@asynccontextmanager
async def opened(system: System) -> AsyncIterator[System]:
    """Have the processes of a system killed at the end, whatever happened."""
    try:
        yield system
    finally:
        await system.kill()


NewShop: TypeAlias = Callable[[], AbstractAsyncContextManager[System]]
